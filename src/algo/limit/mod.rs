//! Limits on calls under way that find themselves.
//!
//! A [`Limit`] is fed with a [`Sample`] of each call that ended and says how many may be under way at once. All of them
//! look for the number at which the peer is busy and nothing queues in front of it; they differ in what they take as a
//! sign of a queue.
//!
//! | limit | sign | moves |
//! |---|---|---|
//! | [`Aimd`] | drops alone | up by one, down by a tenth |
//! | [`Vegas`] | how much slower than without load | by the logarithm of the limit |
//! | [`Gradient`] | how much slower than without load | by that share |
//! | [`Gradient2`] | how much slower than in the long run | by that share |
//! | [`Adaptive`] | a quantile against its baseline, and how it goes with the calls under way | once a window, by the logarithm |
//!
//! [`Windowed`] hands a limit one sample for each window instead of one for each call, and [`PerEvent`] lets it shrink
//! once for each congestion, however many calls that hit.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use buttress::algo::limit::{Aimd, Limit, Sample};
//!
//! # fn now() -> Instant { buttress::clock::now() }
//! let start = now();
//! let mut limit = Aimd::new(20);
//! let sample = Sample { start, rtt: Duration::from_millis(5), in_flight: 20, dropped: false };
//! limit.on_sample(sample, start + sample.rtt);
//! assert_eq!(limit.limit(), 21);
//! limit.on_sample(Sample { dropped: true, ..sample }, start + sample.rtt);
//! assert_eq!(limit.limit(), 18);
//! ```

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

mod adaptive;
mod aimd;
mod average;
mod correlation;
mod event;
mod gradient;
mod gradient2;
mod headroom;
mod median;
mod minimum;
mod queue;
mod sampling;
mod vegas;

pub use adaptive::Adaptive;
pub use aimd::Aimd;
pub use average::Average;
pub use correlation::Correlation;
pub use event::PerEvent;
pub use gradient::Gradient;
pub use gradient2::Gradient2;
pub use median::Median;
pub use minimum::Minimum;
pub use queue::rejection_rate;
pub use sampling::{Aggregate, SampleWindow, Windowed};
pub use vegas::Vegas;

/// How many calls may be under way at once, found out from calls that ended.
pub trait Limit {
    /// Takes in a call that ended at `now`.
    fn on_sample(&mut self, sample: Sample, now: Instant);

    /// The limit as it is now; at least 1.
    fn limit(&self) -> usize;
}

impl<L: Limit + ?Sized> Limit for Box<L> {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        (**self).on_sample(sample, now);
    }

    fn limit(&self) -> usize {
        (**self).limit()
    }
}

/// A call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it began.
    pub start: Instant,
    /// How long it took.
    pub rtt: Duration,
    /// How many calls were under way when it began, itself included.
    pub in_flight: usize,
    /// Whether it was lost to overload: a timeout, or the peer said that it has too much to do.
    pub dropped: bool,
}

/// The whole part of the decimal logarithm, at least 1: the step of the limits, which grows with them and stays small.
pub fn log10(limit: usize) -> usize {
    (limit.max(1).ilog10() as usize).max(1)
}

/// The whole part of the square root, at least 1: a queue that grows with the limit, and more slowly.
pub fn sqrt(limit: usize) -> usize {
    limit.isqrt().max(1)
}

/// Where a limit starts, and between which values it stays.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    min: usize,
    max: usize,
}

impl Bounds {
    fn new(range: RangeInclusive<usize>) -> Self {
        let (min, max) = range.into_inner();
        assert!(min > 0, "a limit of 0 lets nothing pass, and never learns");
        assert!(min <= max, "no limit is between {min} and {max}");
        Self { min, max }
    }

    fn clamp(self, limit: f64) -> f64 {
        limit.clamp(self.min as f64, self.max as f64)
    }
}

/// From one call at a time, so that any peer can be called, up to what one process hardly sends to one peer.
const BOUNDS: Bounds = Bounds { min: 1, max: 1_000 };

fn assert_ratio(what: &str, ratio: f64) {
    assert!(
        ratio > 0.0 && ratio <= 1.0,
        "{what} of {ratio} is not above 0 and at most 1"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The limits of the module, and both wrappers around one.
    fn all(initial: usize, range: RangeInclusive<usize>) -> Vec<(&'static str, Box<dyn Limit>)> {
        let aimd = || Aimd::new(initial).within(range.clone());
        vec![
            ("aimd", Box::new(aimd())),
            ("vegas", Box::new(Vegas::new(initial).within(range.clone()))),
            (
                "gradient",
                Box::new(Gradient::new(initial).within(range.clone())),
            ),
            (
                "gradient2",
                Box::new(Gradient2::new(initial).within(range.clone())),
            ),
            (
                "adaptive",
                Box::new(Adaptive::new(initial).within(range.clone())),
            ),
            ("windowed", Box::new(Windowed::new(aimd()))),
            ("per event", Box::new(PerEvent::new(aimd()))),
        ]
    }

    fn start() -> Instant {
        crate::clock::now()
    }

    /// Feeds `count` equal calls, one after the other.
    fn feed(
        limit: &mut dyn Limit,
        from: Instant,
        count: u32,
        rtt: Duration,
        in_flight: usize,
    ) -> Instant {
        let mut now = from;
        for _ in 0..count {
            let start = now;
            now += rtt;
            let sample = Sample {
                start,
                rtt,
                in_flight,
                dropped: false,
            };
            limit.on_sample(sample, now);
        }
        now
    }

    #[test]
    fn the_logarithm_is_whole_and_at_least_one() {
        for (of, expected) in [
            (0, 1),
            (1, 1),
            (9, 1),
            (99, 1),
            (100, 2),
            (999, 2),
            (10_000, 4),
        ] {
            assert_eq!(log10(of), expected, "{of}");
        }
    }

    #[test]
    fn an_idle_serial_client_does_not_inflate_any_limit() {
        for (name, mut limit) in all(20, 1..=200) {
            feed(&mut *limit, start(), 5_000, Duration::from_millis(20), 1);
            assert!(limit.limit() <= 20, "{name}: {}", limit.limit());
        }
    }

    #[test]
    fn a_timeout_shrinks_every_limit() {
        for (name, mut limit) in all(100, 1..=200) {
            let mut now = feed(&mut *limit, start(), 10, Duration::from_millis(10), 1);
            let before = limit.limit();
            // Windows need some samples to close.
            for _ in 0..30 {
                let start = now;
                let rtt = Duration::from_millis(500);
                now += rtt;
                limit.on_sample(
                    Sample {
                        start,
                        rtt,
                        in_flight: 100,
                        dropped: true,
                    },
                    now,
                );
            }
            assert!(limit.limit() < before, "{name}: {}", limit.limit());
            assert!(limit.limit() >= 1);
        }
    }

    #[test]
    #[should_panic(expected = "never learns")]
    fn a_minimum_of_nothing_is_refused_where_it_is_written() {
        let _ = Aimd::new(20).within(0..=200);
    }

    proptest! {
        #[test]
        fn no_sample_moves_a_limit_out_of_its_bounds(
            initial in 1_usize..300,
            min in 1_usize..50,
            more in 0_usize..200,
            calls in prop::collection::vec(
                (0_u64..3_000, 0_u64..20_000, 0_usize..300, any::<bool>()), 1..300,
            ),
        ) {
            let max = min + more;
            for (name, mut limit) in all(initial, min..=max) {
                let mut now = start();
                for &(wait, rtt, in_flight, dropped) in &calls {
                    let (start, rtt) = (now, Duration::from_millis(rtt));
                    now += Duration::from_millis(wait);
                    limit.on_sample(Sample { start, rtt, in_flight, dropped }, now);
                    prop_assert!(limit.limit() >= 1, "{name}");
                    // Vegas drains below its minimum for a moment, to see the peer without load.
                    if name != "vegas" {
                        prop_assert!((min..=max).contains(&limit.limit()), "{name}: {}", limit.limit());
                    }
                }
            }
        }
    }
}
