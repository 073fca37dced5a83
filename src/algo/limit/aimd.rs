use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{BOUNDS, Bounds, Limit, Sample, assert_ratio};

/// Additive increase, multiplicative decrease: up by one while calls fill at least half of it, down by a tenth when a
/// call is dropped. It learns nothing from latency below its timeout, so it finds its limit by losing calls.
///
/// As in Netflix' concurrency-limits, `AIMDLimit`.
#[derive(Clone, Debug)]
pub struct Aimd {
    limit: usize,
    bounds: Bounds,
    backoff: f64,
    timeout: Duration,
}

impl Aimd {
    /// Starts at `initial`, or at the nearest of its bounds, which are 1 to 1000.
    pub fn new(initial: usize) -> Self {
        Self {
            limit: initial,
            bounds: BOUNDS,
            backoff: 0.9,
            timeout: Duration::from_secs(5),
        }
        .clamped()
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
        self.clamped()
    }

    /// Keeps this share of the limit after a drop. Default 0.9: half, as TCP does it, starves a pool of calls that are
    /// all hit by one hiccup.
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

    /// Takes a call that lasted longer than this as dropped. Default 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn clamped(mut self) -> Self {
        self.limit = self.limit.clamp(self.bounds.min, self.bounds.max);
        self
    }
}

impl Limit for Aimd {
    fn on_sample(&mut self, sample: Sample, _: Instant) {
        let limit = if sample.dropped || sample.rtt > self.timeout {
            (self.limit as f64 * self.backoff) as usize
        } else if sample.in_flight.saturating_mul(2) >= self.limit {
            self.limit.saturating_add(1)
        } else {
            return;
        };
        self.limit = limit.clamp(self.bounds.min, self.bounds.max);
    }

    fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_up_by_one_and_down_by_a_tenth() {
        let start = crate::clock::now();
        let mut limit = Aimd::new(20).within(10..=22);
        // In flight, latency in ms, dropped, and the limit after it.
        for (in_flight, rtt, dropped, expected) in [
            (9, 1, false, 20),
            (10, 1, false, 21),
            (10, 1, false, 21),
            (11, 1, false, 22),
            (30, 1, false, 22),
            (30, 5_000, false, 22),
            (30, 5_001, false, 19),
            (0, 0, true, 17),
            (0, 0, true, 15),
            (0, 0, true, 13),
            (0, 0, true, 11),
            (0, 0, true, 10),
        ] {
            let rtt = Duration::from_millis(rtt);
            limit.on_sample(
                Sample {
                    start,
                    rtt,
                    in_flight,
                    dropped,
                },
                start + rtt,
            );
            assert_eq!(limit.limit(), expected, "{in_flight} {rtt:?} {dropped}");
        }
    }
}
