use std::time::Instant;

use super::{Limit, Sample};

/// Lets a limit shrink once for each congestion.
///
/// A call that began before the limit last shrank tells of the congestion that it shrank for. So a hundred calls that
/// time out together count as one event, and the calls that begin under the new limit say whether it was enough: what
/// TCP does once a round trip (RFC 5681 §3.2).
#[derive(Clone, Debug)]
pub struct PerEvent<L> {
    inner: L,
    shrank: Option<Instant>,
}

impl<L> PerEvent<L> {
    /// Holds back from `limit` the samples of a congestion that it has answered.
    pub fn new(limit: L) -> Self {
        Self {
            inner: limit,
            shrank: None,
        }
    }
}

impl<L: Limit> Limit for PerEvent<L> {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        if self.shrank.is_some_and(|at| sample.start < at) {
            return;
        }
        let before = self.inner.limit();
        self.inner.on_sample(sample, now);
        if self.inner.limit() < before {
            self.shrank = Some(now);
        }
    }

    fn limit(&self) -> usize {
        self.inner.limit()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Aimd;
    use super::*;

    #[test]
    fn calls_that_fail_together_are_one_congestion() {
        let start = crate::clock::now();
        let second = Duration::from_secs(1);
        let mut limit = PerEvent::new(Aimd::new(100).timeout(second));
        let call = |start: Instant, dropped, rtt| Sample {
            start,
            rtt,
            in_flight: 100,
            dropped,
        };

        for _ in 0..7 {
            limit.on_sample(call(start, true, second), start + second);
        }
        assert_eq!(limit.limit(), 90);
        // Slow ones of the same time are the same congestion, and so are answers that began before it was met.
        limit.on_sample(call(start, false, 2 * second), start + 2 * second);
        limit.on_sample(call(start, false, second / 2), start + 2 * second);
        assert_eq!(limit.limit(), 90);
        // One that began under the new limit is another.
        limit.on_sample(call(start + second, true, second), start + 2 * second);
        assert_eq!(limit.limit(), 81);
    }
}
