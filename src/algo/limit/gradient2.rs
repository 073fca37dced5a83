use std::ops::RangeInclusive;
use std::time::Instant;

use super::{Average, BOUNDS, Bounds, Limit, Sample, assert_ratio};

/// Follows the gradient of latency: shrinks by how much slower calls are than in the long run, and else grows by a
/// small queue.
///
/// `limit · clamp(tolerance · long / short, 0.5, 1) + queue`, smoothed, as in Netflix' concurrency-limits,
/// `Gradient2Limit`. That one ignores drops, so that a peer whose calls all time out looks steady and the limit grows:
/// here a drop shrinks the limit, and teaches nothing of latency, unless [`backoff`](Self::backoff) is 1.
#[derive(Clone, Debug)]
pub struct Gradient2 {
    estimate: f64,
    bounds: Bounds,
    smoothing: f64,
    queue: usize,
    tolerance: f64,
    backoff: f64,
    long: Average,
}

impl Gradient2 {
    /// Starts at `initial`, or at the nearest of its bounds, which are 1 to 1000.
    pub fn new(initial: usize) -> Self {
        Self {
            estimate: BOUNDS.clamp(initial as f64),
            bounds: BOUNDS,
            smoothing: 0.2,
            queue: 4,
            tolerance: 1.5,
            backoff: 0.9,
            long: Average::new(600, WARM_UP),
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

    /// Goes this share of the way to a new limit at each sample. Default 0.2.
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

    /// How many calls may queue at the peer. Default 4: more room to grow, and more latency.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Averages the latency of the long run over about so many samples. Default 600.
    #[must_use]
    pub fn long_window(mut self, samples: u32) -> Self {
        self.long = Average::new(samples, WARM_UP);
        self
    }

    /// Bears latency up to so many times that of the long run. Default 1.5: what varies by itself is no queue.
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

    /// Keeps this share of the limit after a drop. Default 0.9; 1 takes a drop as any other call.
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

    /// The limit before it is rounded down.
    pub fn estimate(&self) -> f64 {
        self.estimate
    }
}

impl Limit for Gradient2 {
    fn on_sample(&mut self, sample: Sample, _: Instant) {
        if sample.dropped && self.backoff < 1.0 {
            self.estimate = self.bounds.clamp(self.estimate * self.backoff);
            return;
        }
        let short = sample.rtt.as_secs_f64().max(f64::MIN_POSITIVE);
        let long = self.long.add(short);
        // After an overload the long run is too slow by far, and would take long to see it.
        if long / short > 2.0 {
            self.long.set(long * 0.95);
        }
        if (sample.in_flight as f64) < self.estimate / 2.0 {
            return;
        }
        let gradient = (self.tolerance * long / short).clamp(0.5, 1.0);
        let target = self.estimate * gradient + self.queue as f64;
        let smoothed = self.estimate * (1.0 - self.smoothing) + target * self.smoothing;
        self.estimate = self.bounds.clamp(smoothed);
    }

    fn limit(&self) -> usize {
        self.estimate as usize
    }
}

const WARM_UP: u32 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Latency in ms, in flight, and the estimate after it.
    fn runs(mut limit: Gradient2, steps: &[(u64, usize, f64)]) {
        let start = crate::clock::now();
        for &(rtt, in_flight, expected) in steps {
            let rtt = Duration::from_millis(rtt);
            limit.on_sample(
                Sample {
                    start,
                    rtt,
                    in_flight,
                    dropped: false,
                },
                start + rtt,
            );
            let error = (limit.estimate() - expected).abs();
            assert!(
                error < 0.01,
                "{rtt:?} {in_flight}: {} for {expected}",
                limit.estimate()
            );
        }
    }

    #[test]
    fn it_holds_when_half_idle() {
        runs(
            Gradient2::new(20),
            &[(10, 9, 20.0), (10, 9, 20.0), (10, 10, 20.8)],
        );
    }

    #[test]
    fn it_shrinks_by_the_gradient_and_bears_what_is_within_its_tolerance() {
        let warm: Vec<_> = (1..=10)
            .map(|i| (10, 100, 100.0 + 0.8 * f64::from(i)))
            .collect();
        let overloaded = [
            (100, 100, 98.0),
            (100, 100, 89.0),
            (100, 100, 80.9),
            (100, 100, 73.61),
        ];
        runs(Gradient2::new(100), &[&warm[..], &overloaded].concat());
        let bearable = [(14, 100, 108.8), (14, 100, 109.6)];
        runs(Gradient2::new(100), &[&warm[..], &bearable].concat());
    }

    #[test]
    fn calls_that_all_time_out_do_not_look_steady() {
        let start = crate::clock::now();
        let mut limit = Gradient2::new(100);
        let mut published = Gradient2::new(100).backoff(1.0);
        for _ in 0..100 {
            let rtt = Duration::from_secs(1);
            let sample = Sample {
                start,
                rtt,
                in_flight: 200,
                dropped: true,
            };
            limit.on_sample(sample, start + rtt);
            published.on_sample(sample, start + rtt);
        }
        assert_eq!(limit.limit(), 1);
        assert!(published.limit() > 150);
    }
}
