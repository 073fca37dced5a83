//! A quantile of the last calls' latencies, such as the time that 95 % of them do not exceed.
//!
//! The latencies are counted in a histogram whose buckets grow with the latency (as in HdrHistogram), so that each is
//! known to a sixteenth of itself. A mark stays on the bucket that holds the quantile, and moves by a call at a time:
//! a sample costs the same however many there are.
//!
//! ```
//! use std::time::Duration;
//! use buttress::algo::quantile::Quantile;
//!
//! let mut p95 = Quantile::new(0.95);
//! for ms in 1..=100 {
//!     p95.record(Duration::from_millis(ms));
//! }
//! let estimate = p95.estimate().expect("there were calls");
//! assert!((95..=101).contains(&estimate.as_millis()));
//! ```

use std::time::Duration;

/// A quantile of the last [`WINDOW`] latencies.
#[derive(Clone, Debug)]
pub struct Quantile {
    share: f64,
    /// How many of the latencies lie in each bucket.
    counts: Box<[u16]>,
    /// The buckets of the latencies, the oldest at `next` once there are [`WINDOW`].
    recent: Vec<u16>,
    next: usize,
    /// The bucket that holds the quantile.
    mark: usize,
    /// How many of the latencies lie in buckets before it.
    below: usize,
}

impl Quantile {
    /// The latency that a `share` of the calls do not exceed: 0.95 for p95.
    ///
    /// # Panics
    ///
    /// If `share` is not above 0 and below 1.
    #[track_caller]
    pub fn new(share: f64) -> Self {
        assert!(
            share > 0.0 && share < 1.0,
            "a quantile lies between 0 and 1, which {share} does not"
        );
        Self {
            share,
            counts: vec![0; BUCKETS].into(),
            recent: Vec::with_capacity(WINDOW),
            next: 0,
            mark: 0,
            below: 0,
        }
    }

    /// Takes in a latency, in place of the oldest once there are [`WINDOW`].
    pub fn record(&mut self, latency: Duration) {
        let new = bucket(latency);
        if self.recent.len() < WINDOW {
            self.recent.push(new);
        } else {
            let old = std::mem::replace(&mut self.recent[self.next], new);
            self.next = (self.next + 1) % WINDOW;
            self.counts[usize::from(old)] -= 1;
            self.below -= usize::from(usize::from(old) < self.mark);
        }
        self.counts[usize::from(new)] += 1;
        self.below += usize::from(usize::from(new) < self.mark);

        // Over at most one bucket that is not empty.
        let rank = self.rank();
        while self.below >= rank {
            self.mark -= 1;
            self.below -= usize::from(self.counts[self.mark]);
        }
        while self.below + usize::from(self.counts[self.mark]) < rank {
            self.below += usize::from(self.counts[self.mark]);
            self.mark += 1;
        }
    }

    /// The quantile: never less than it is, and more by a sixteenth at most. `None` before the first latency.
    pub fn estimate(&self) -> Option<Duration> {
        (!self.recent.is_empty()).then(|| end(self.mark))
    }

    /// How many latencies it knows.
    pub fn samples(&self) -> usize {
        self.recent.len()
    }

    /// Which of the latencies the quantile is, in ascending order and 1 for the smallest.
    fn rank(&self) -> usize {
        // A product such as 0.95 of 100 can be a hair above the whole number that is meant.
        ((self.share * self.recent.len() as f64 - 1e-9).ceil() as usize).max(1)
    }
}

/// The bucket of a latency: one for each microsecond below 16, then sixteen for each doubling, up to 71 minutes.
fn bucket(latency: Duration) -> u16 {
    let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
    let doublings = (u32::BITS - micros.leading_zeros()).saturating_sub(PRECISION + 1);
    ((doublings << PRECISION) + (micros >> doublings)) as u16
}

/// The end of a bucket, which lies beyond all latencies in it.
fn end(bucket: usize) -> Duration {
    let doublings = (bucket >> PRECISION).saturating_sub(1);
    let steps = bucket - (doublings << PRECISION);
    Duration::from_micros(((steps + 1) as u64) << doublings)
}

/// How many latencies a [`Quantile`] looks back on. Of a thousand calls fifty lie above p95, which is enough for a
/// steady figure, and a service that is called at all turns slow and is noticed within a minute.
pub const WINDOW: usize = 1000;

/// Bits by which a bucket is known: each is a sixteenth as wide as it is far from zero.
const PRECISION: u32 = 4;
const BUCKETS: usize = ((u32::BITS - PRECISION + 1) << PRECISION) as usize;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_forgets_what_lies_further_back_than_its_window() {
        let mut median = Quantile::new(0.5);
        for _ in 0..WINDOW {
            median.record(Duration::from_secs(10));
        }
        for _ in 0..WINDOW / 2 - 1 {
            median.record(Duration::from_millis(1));
        }
        assert!(median.estimate() > Some(Duration::from_secs(9)));
        median.record(Duration::from_millis(1));
        assert!(median.estimate() < Some(Duration::from_millis(2)));
        assert_eq!(median.samples(), WINDOW);
    }

    #[test]
    fn every_bucket_begins_where_the_one_before_it_ends() {
        for bucket in 0..BUCKETS - 1 {
            let next = end(bucket);
            assert_eq!(usize::from(super::bucket(next)), bucket + 1);
            let last = next - Duration::from_micros(1);
            assert_eq!(usize::from(super::bucket(last)), bucket);
        }
        let longest = usize::from(super::bucket(Duration::MAX));
        assert_eq!(longest, BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_sorted_list_of_the_last_latencies(
            share in 0.01_f64..0.999,
            latencies in prop::collection::vec((0_u32..31, any::<u32>()), 1..2500),
        ) {
            let mut quantile = Quantile::new(share);
            let mut all = Vec::new();
            for (n, (shift, micros)) in latencies.into_iter().enumerate() {
                let micros = u64::from(micros >> shift);
                quantile.record(Duration::from_micros(micros));
                all.push(micros);
                if n % 97 != 0 && n > 20 {
                    continue;
                }
                let mut recent = all[all.len().saturating_sub(WINDOW)..].to_vec();
                recent.sort_unstable();
                let rank = ((share * recent.len() as f64).ceil() as usize).max(1);
                let exact = recent[rank - 1];
                let estimate = quantile.estimate().expect("samples").as_micros() as u64;
                prop_assert!(
                    (exact + 1..=exact + exact / 16 + 1).contains(&estimate),
                    "{} for {} of {}", estimate, exact, recent.len()
                );
            }
        }
    }
}
