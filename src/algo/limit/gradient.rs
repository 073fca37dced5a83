use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{BOUNDS, Bounds, Limit, Minimum, Sample, assert_ratio, sqrt};

/// Follows the gradient of latency: shrinks by how much slower calls are than without load, and else grows by a small
/// queue.
///
/// `limit · clamp(tolerance · no-load / rtt, 0.5, 1) + queue`, smoothed where it falls, as in Netflix'
/// concurrency-limits, `GradientLimit`. That one forgets its no-load latency after a number of samples, and falls to its
/// queue to see the next: here time decides when, and a client that is half idle does not fall.
#[derive(Clone, Debug)]
pub struct Gradient {
    estimate: f64,
    bounds: Bounds,
    smoothing: f64,
    queue: Option<usize>,
    tolerance: f64,
    backoff: f64,
    memory: Duration,
    no_load: Minimum,
    /// Since when the no-load latency is looked for.
    since: Option<Instant>,
}

impl Gradient {
    /// Starts at `initial`, or at the nearest of its bounds, which are 1 to 1000.
    pub fn new(initial: usize) -> Self {
        Self {
            estimate: BOUNDS.clamp(initial as f64),
            bounds: BOUNDS,
            smoothing: 0.2,
            queue: None,
            tolerance: 2.0,
            backoff: 0.9,
            memory: Duration::from_secs(10),
            no_load: Minimum::default(),
            since: None,
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

    /// Goes this share of the way down to a lower limit at each sample. Default 0.2.
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

    /// How many calls may queue at the peer: what the limit grows by, and the least that it falls to. Default: the
    /// [square root](sqrt) of the limit, at least 4.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = Some(calls);
        self
    }

    /// Bears latency up to so many times that without load. Default 2: what varies by itself is no queue.
    ///
    /// # Panics
    ///
    /// If it is below 1.
    #[must_use]
    #[track_caller]
    pub fn tolerance(mut self, times: f64) -> Self {
        assert!(
            times >= 1.0,
            "a tolerance of {times} sees a queue where there is none"
        );
        self.tolerance = times;
        self
    }

    /// Keeps this share of the limit after a drop. Default 0.9.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn backoff(mut self, ratio: f64) -> Self {
        assert_ratio("a share", ratio);
        self.backoff = ratio;
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

    /// Whether it is time to look at the peer without load again.
    fn forgets(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let forgets = now.saturating_duration_since(since) > self.memory;
        if forgets {
            self.no_load.reset();
            self.since = Some(now);
        }
        forgets
    }
}

impl Limit for Gradient {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        let queue = self
            .queue
            .unwrap_or_else(|| sqrt(self.estimate as usize).max(4)) as f64;
        let is_idle = (sample.in_flight as f64) < self.estimate / 2.0;
        // A client that is half idle sees the peer without load of its own as it is.
        if self.forgets(now) && !is_idle {
            self.estimate = self.bounds.clamp(queue);
            return;
        }
        let target = if sample.dropped {
            // A lost call took as long as somebody waited, which says nothing of the peer without load.
            self.estimate * self.backoff
        } else {
            let rtt = sample.rtt.as_secs_f64().max(f64::MIN_POSITIVE);
            let no_load = self.no_load.add(rtt);
            if is_idle {
                return;
            }
            let gradient = (self.tolerance * no_load / rtt).clamp(0.5, 1.0);
            self.estimate * gradient + queue
        };
        let smoothed = self.estimate * (1.0 - self.smoothing) + target * self.smoothing;
        let next = if target < self.estimate {
            smoothed
        } else {
            target
        };
        self.estimate = self.bounds.clamp(next.max(queue));
    }

    fn limit(&self) -> usize {
        self.estimate as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(start: Instant, millis: u64, in_flight: usize) -> Sample {
        Sample {
            start,
            rtt: Duration::from_millis(millis),
            in_flight,
            dropped: false,
        }
    }

    #[test]
    fn it_grows_by_its_queue_and_falls_by_the_gradient() {
        let start = crate::clock::now();
        let mut limit = Gradient::new(100).queue(4);
        // Latency in ms, in flight, dropped, and the estimate after it.
        for (rtt, in_flight, dropped, expected) in [
            (10, 100, false, 104.0),
            (20, 104, false, 108.0),
            (40, 108, false, 98.0),
            (40, 48, false, 98.0),
            (10, 0, true, 96.04),
        ] {
            let sample = Sample {
                dropped,
                ..call(start, rtt, in_flight)
            };
            limit.on_sample(sample, start + sample.rtt);
            let estimate = limit.estimate();
            assert!(
                (estimate - expected).abs() < 1e-9,
                "{estimate} for {expected}"
            );
        }
    }

    #[test]
    fn one_lucky_answer_does_not_hold_the_limit_down_for_ever() {
        let mut now = crate::clock::now();
        let mut limit = Gradient::new(50);
        limit.on_sample(call(now, 1, 50), now);
        for _ in 0..3_000 {
            let start = now;
            now += Duration::from_millis(20);
            limit.on_sample(call(start, 20, limit.limit()), now);
        }
        assert!(limit.limit() > 100, "{}", limit.limit());
    }

    #[test]
    fn it_falls_to_its_queue_to_see_the_no_load_latency_unless_it_is_half_idle() {
        let start = crate::clock::now();
        let mut limit = Gradient::new(400).memory(Duration::from_secs(1));
        limit.on_sample(call(start, 10, 400), start);
        assert_eq!(limit.limit(), 420);
        let late = start + Duration::from_millis(1001);
        let mut idle = limit.clone();
        limit.on_sample(call(start, 10, 420), late);
        assert_eq!(limit.limit(), 20);
        idle.on_sample(call(start, 30, 1), late);
        idle.on_sample(call(start, 30, 420), late);
        assert_eq!(idle.limit(), 440, "30 ms are the no-load latency now");
    }
}
