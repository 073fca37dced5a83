//! Controlled delay: tells a queue that stands from one that takes up a burst.
//!
//! A queue whose shortest wait of a whole interval is above the target stands: it adds latency and nothing else. Then
//! whoever waited more than twice the target is dropped, so that the others are served in time. After Nichols and
//! Jacobson (RFC 8289), in the form that servers use: Maurer, *Fail at Scale*, and folly's `Codel`.
//!
//! ```
//! use std::time::Duration;
//! use buttress::algo::codel::CoDel;
//!
//! # let start = buttress::clock::now();
//! let ms = Duration::from_millis;
//! let mut codel = CoDel::new(ms(5), ms(100));
//! assert!(!codel.is_late(ms(80), start));
//! // The shortest wait of the first interval was above 5 ms: the queue stands.
//! assert!(codel.is_late(ms(80), start + ms(100)));
//! assert!(!codel.is_late(ms(9), start + ms(101)));
//! ```

use std::time::{Duration, Instant};

/// Decides who waited too long.
#[derive(Clone, Debug)]
pub struct CoDel {
    target: Duration,
    interval: Duration,
    ends: Option<Instant>,
    least: Duration,
    stands: bool,
}

impl CoDel {
    /// A queue may make everybody wait `target`, and longer for an `interval` at most.
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self {
            target,
            interval,
            ends: None,
            least: Duration::ZERO,
            stands: false,
        }
    }

    /// Whether one who `waited` and whose turn it is now should be dropped instead.
    pub fn is_late(&mut self, waited: Duration, now: Instant) -> bool {
        if self.ends.is_some_and(|at| now < at) {
            self.least = self.least.min(waited);
        } else {
            self.stands = self.ends.is_some() && self.least > self.target;
            self.least = waited;
            self.ends = Some(now + self.interval);
        }
        self.stands && waited > 2 * self.target
    }

    /// Nobody waits any more: the queue did not stand.
    pub fn emptied(&mut self) {
        self.least = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_not_dropped_and_a_queue_that_stands_is() {
        let start = crate::clock::now();
        let mut codel = CoDel::new(ms(5), ms(100));
        // When its turn comes, how long it waited, and whether it is dropped.
        for (at, waited, late) in [
            (0, 90, false),
            (50, 90, false),
            (100, 90, true),
            (110, 11, true),
            (120, 10, false),
            (150, 3, false),
            (201, 90, false),
            (301, 90, true),
        ] {
            assert_eq!(
                codel.is_late(ms(waited), start + ms(at)),
                late,
                "{at} {waited}"
            );
        }
        codel.emptied();
        assert!(!codel.is_late(ms(90), start + ms(5_000)));
    }
}
