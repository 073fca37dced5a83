use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{BOUNDS, Bounds, Limit, Sample, assert_ratio, log10};

/// Keeps a small queue at the peer: how many of the calls under way wait there is read from how much slower they are
/// than without load, `limit · (1 − no-load / rtt)`.
///
/// Brakmo and Peterson's TCP Vegas, with the steps of Netflix' concurrency-limits, `VegasLimit`: below the threshold it
/// grows by beta, below alpha by one step, above beta and after a drop it shrinks by one step.
///
/// The no-load latency is the least seen, and it is forgotten in [`memory`](Self::memory): then half the limit is
/// given out for a round trip, so that the queue drains and the next call sees the peer without it (as BBR does). A
/// latency taken under load would let the limit drift up for good; one that is never renewed would pin it to one lucky
/// answer.
#[derive(Clone, Debug)]
pub struct Vegas {
    estimate: f64,
    bounds: Bounds,
    smoothing: f64,
    alpha: Option<usize>,
    beta: Option<usize>,
    threshold: Option<usize>,
    step: Option<usize>,
    backoff: Option<f64>,
    memory: Duration,
    no_load: Option<NoLoad>,
    draining: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct NoLoad {
    rtt: Duration,
    seen: Instant,
}

impl Vegas {
    /// Starts at `initial`, or at the nearest of its bounds, which are 1 to 1000.
    pub fn new(initial: usize) -> Self {
        Self {
            estimate: BOUNDS.clamp(initial as f64),
            bounds: BOUNDS,
            smoothing: 1.0,
            alpha: None,
            beta: None,
            threshold: None,
            step: None,
            backoff: None,
            memory: Duration::from_secs(10),
            no_load: None,
            draining: None,
        }
    }

    /// Stays within these bounds.
    ///
    /// # Panics
    ///
    /// If they begin at 0 or are empty.
    #[must_use]
    #[track_caller]
    pub fn within(mut self, range: RangeInclusive<usize>) -> Self {
        self.bounds = Bounds::new(range);
        self.estimate = self.bounds.clamp(self.estimate);
        self
    }

    /// Goes this share of the way to a new limit at each sample. Default 1.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn smoothing(mut self, share: f64) -> Self {
        assert_ratio("a share", share);
        self.smoothing = share;
        self
    }

    /// Grows while fewer than so many calls queue. Default: three times the logarithm of the limit.
    #[must_use]
    pub fn alpha(mut self, calls: usize) -> Self {
        self.alpha = Some(calls);
        self
    }

    /// Shrinks while more than so many calls queue. Default: six times the logarithm of the limit.
    #[must_use]
    pub fn beta(mut self, calls: usize) -> Self {
        self.beta = Some(calls);
        self
    }

    /// Grows by beta while at most so many calls queue. Default: the logarithm of the limit.
    #[must_use]
    pub fn threshold(mut self, calls: usize) -> Self {
        self.threshold = Some(calls);
        self
    }

    /// How much it grows or shrinks at once. Default: the logarithm of the limit.
    #[must_use]
    pub fn step(mut self, calls: usize) -> Self {
        self.step = Some(calls);
        self
    }

    /// Shrinks to this share of the limit instead of by a step.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn backoff(mut self, ratio: f64) -> Self {
        assert_ratio("a share", ratio);
        self.backoff = Some(ratio);
        self
    }

    /// How long a no-load latency is believed. Default 10 s, as BBR does.
    #[must_use]
    pub fn memory(mut self, memory: Duration) -> Self {
        self.memory = memory;
        self
    }

    /// The limit before it is rounded down.
    pub fn estimate(&self) -> f64 {
        self.estimate
    }

    /// Keeps the least latency, and says whether this sample was it, or was made while the queue drained.
    fn renews(&mut self, sample: Sample, now: Instant) -> bool {
        if let Some(since) = self.draining {
            if sample.start < since {
                return true;
            }
            self.draining = None;
        } else if let Some(known) = self.no_load.filter(|known| sample.rtt >= known.rtt) {
            if now.saturating_duration_since(known.seen) <= self.memory {
                return false;
            }
            // A client that is half idle sees the peer without load of its own as it is.
            if !self.is_idle(sample) {
                self.draining = Some(now);
                return true;
            }
        }
        self.no_load = Some(NoLoad {
            rtt: sample.rtt,
            seen: now,
        });
        true
    }

    fn is_idle(&self, sample: Sample) -> bool {
        (sample.in_flight as f64) * 2.0 < self.estimate
    }

    fn target(&self, sample: Sample, no_load: Duration) -> Option<f64> {
        let limit = self.estimate as usize;
        let log = log10(limit);
        let step = self.step.unwrap_or(log) as f64;
        let less = self
            .backoff
            .map_or(self.estimate - step, |ratio| self.estimate * ratio);
        if sample.dropped {
            return Some(less);
        }
        if self.is_idle(sample) {
            return None;
        }
        let faster = no_load.as_secs_f64() / sample.rtt.as_secs_f64().max(f64::MIN_POSITIVE);
        let queue = (self.estimate * (1.0 - faster)).ceil().max(0.0) as usize;
        let beta = self.beta.unwrap_or(6 * log);
        if queue <= self.threshold.unwrap_or(log) {
            Some(self.estimate + beta as f64)
        } else if queue < self.alpha.unwrap_or(3 * log) {
            Some(self.estimate + step)
        } else if queue > beta {
            Some(less)
        } else {
            None
        }
    }
}

impl Limit for Vegas {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        // A lost call took as long as somebody waited, which says nothing of the peer without load.
        if !sample.dropped && self.renews(sample, now) {
            return;
        }
        let no_load = self.no_load.map_or(sample.rtt, |known| known.rtt);
        if let Some(target) = self.target(sample, no_load) {
            let target = self.bounds.clamp(target);
            self.estimate += (target - self.estimate) * self.smoothing;
        }
    }

    fn limit(&self) -> usize {
        let limit = self.estimate as usize;
        match self.draining {
            Some(_) => (limit / 2).max(1),
            None => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn call(start: Instant, rtt: u64, in_flight: usize) -> Sample {
        let rtt = ms(rtt);
        Sample {
            start,
            rtt,
            in_flight,
            dropped: false,
        }
    }

    #[test]
    fn it_moves_by_the_queue_that_it_estimates() {
        let start = crate::clock::now();
        let mut limit = Vegas::new(10).alpha(3).beta(6);
        // Latency in ms, in flight, dropped, and the limit after it.
        for (rtt, in_flight, dropped, expected) in [
            (10, 10, false, 10),
            (10, 11, false, 16),
            (50, 16, false, 15),
            (20, 6, false, 15),
            (15, 15, false, 15),
            (11, 15, false, 16),
            (11, 2, true, 15),
        ] {
            let sample = Sample {
                dropped,
                ..call(start, rtt, in_flight)
            };
            limit.on_sample(sample, start + sample.rtt);
            assert_eq!(limit.limit(), expected, "{rtt} {in_flight} {dropped}");
        }
    }

    #[test]
    fn it_can_go_part_of_the_way() {
        let start = crate::clock::now();
        let mut limit = Vegas::new(100).backoff(0.5).smoothing(0.5);
        for (rtt, expected) in [(10, 100.0), (20, 75.0), (20, 56.25)] {
            limit.on_sample(call(start, rtt, 100), start + ms(rtt));
            assert_eq!(limit.estimate(), expected);
        }
    }

    #[test]
    fn one_lucky_answer_does_not_pin_the_limit_for_ever() {
        let mut now = crate::clock::now();
        let mut limit = Vegas::new(50);
        limit.on_sample(call(now, 1, 50), now);
        for _ in 0..3_000 {
            let start = now;
            now += ms(20);
            let in_flight = limit.limit();
            limit.on_sample(call(start, 20, in_flight), now);
        }
        assert!(limit.limit() > 100, "{}", limit.limit());
    }

    #[test]
    fn the_no_load_latency_is_renewed_without_load_and_so_does_not_drift_up() {
        // A peer that works on 40 calls at once, 20 ms each; what is above that queues.
        let mut now = crate::clock::now();
        let mut limit = Vegas::new(20);
        let mut most = 0;
        for _ in 0..10_000 {
            let start = now;
            let in_flight = limit.limit();
            let rtt = 20 * in_flight.max(40) as u64 / 40;
            now += ms(rtt);
            limit.on_sample(call(start, rtt, in_flight), now);
            most = most.max(limit.limit());
        }
        assert!((30..60).contains(&most), "{most}");
    }

    #[test]
    fn a_client_that_is_half_idle_renews_the_no_load_latency_without_draining() {
        let start = crate::clock::now();
        let mut limit = Vegas::new(40).memory(ms(1_000));
        limit.on_sample(call(start, 10, 1), start + ms(10));
        let late = start + ms(2_000);
        limit.on_sample(call(late, 30, 1), late + ms(30));
        assert_eq!(limit.limit(), 40);
        limit.on_sample(call(late, 30, 40), late + ms(30));
        assert_eq!(limit.limit(), 46, "30 ms are the no-load latency now");
    }

    #[test]
    fn while_the_queue_drains_half_is_given_out() {
        let start = crate::clock::now();
        let mut limit = Vegas::new(40).memory(ms(1_000));
        limit.on_sample(call(start, 10, 40), start + ms(10));
        let late = start + ms(1_011);
        limit.on_sample(call(late - ms(30), 30, 40), late);
        assert_eq!(limit.limit(), 20);
        limit.on_sample(call(late - ms(10), 30, 40), late + ms(20));
        assert_eq!(limit.limit(), 20, "it began before the queue drained");
        limit.on_sample(call(late, 15, 20), late + ms(15));
        assert_eq!(limit.limit(), 40);
        limit.on_sample(call(late, 15, 40), late + ms(15));
        assert_eq!(limit.limit(), 46, "15 ms are the no-load latency now");
    }
}
