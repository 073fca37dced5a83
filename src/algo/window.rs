//! Sliding windows of outcomes: the last n calls, or the last so many seconds.
//!
//! Both keep a running [`Tally`], so that a record and a reading cost the same however much a window holds.
//!
//! ```
//! use buttress::algo::window::CountWindow;
//!
//! let mut window = CountWindow::new(2);
//! window.record(true, false);
//! window.record(false, false);
//! window.record(false, true);
//! assert_eq!(window.tally().failures, 0);
//! assert_eq!(window.tally().slow_rate(), 0.5);
//! ```

use std::ops::{AddAssign, SubAssign};
use std::time::{Duration, Instant};

/// How many calls there were, and how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub calls: u32,
    /// Those that failed, slow ones included.
    pub failures: u32,
    /// Those that were slow, failed ones included.
    pub slow: u32,
    /// Those that were slow and failed.
    pub slow_failures: u32,
}

impl Tally {
    /// The tally of one call.
    pub fn one(failed: bool, slow: bool) -> Self {
        Self {
            calls: 1,
            failures: failed.into(),
            slow: slow.into(),
            slow_failures: (failed && slow).into(),
        }
    }

    /// Those that neither failed nor were slow.
    pub fn good(self) -> u32 {
        // What failed counts once, slow or not. In this order no step leaves the range, whatever the calls.
        self.calls - self.failures - (self.slow - self.slow_failures)
    }

    /// The share of failures, from 0 to 1; 0 without calls.
    pub fn failure_rate(self) -> f64 {
        share(self.failures, self.calls)
    }

    /// The share of slow calls, from 0 to 1; 0 without calls.
    pub fn slow_rate(self) -> f64 {
        share(self.slow, self.calls)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
        self.slow_failures += other.slow_failures;
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
        self.slow_failures -= other.slow_failures;
    }
}

/// The last n calls.
#[derive(Clone, Debug)]
pub struct CountWindow {
    size: usize,
    /// Whether each call failed and whether it was slow. Grows to `size`, then `oldest` goes round.
    ring: Vec<(bool, bool)>,
    oldest: usize,
    total: Tally,
}

impl CountWindow {
    /// A window over the last `size` calls; 0 is taken as 1. All its memory, 2 bytes a call, is taken here.
    pub fn new(size: u32) -> Self {
        let size = size.max(1) as usize;
        Self {
            size,
            ring: Vec::with_capacity(size),
            oldest: 0,
            total: Tally::default(),
        }
    }

    /// Counts a call; the oldest one leaves a full window.
    pub fn record(&mut self, failed: bool, slow: bool) {
        self.total += Tally::one(failed, slow);
        if self.ring.len() < self.size {
            self.ring.push((failed, slow));
            return;
        }
        let (failed, slow) = std::mem::replace(&mut self.ring[self.oldest], (failed, slow));
        self.total -= Tally::one(failed, slow);
        self.oldest = (self.oldest + 1) % self.size;
    }

    fn add_successes(&mut self, calls: u64) {
        for _ in 0..calls.min(self.size as u64) {
            self.record(false, false);
        }
    }

    /// What the window holds.
    pub fn tally(&self) -> Tally {
        self.total
    }

    /// Forgets every call.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.oldest = 0;
        self.total = Tally::default();
    }
}

/// The calls of the last so many seconds.
///
/// Its length is cut into [`TimeWindow::BUCKETS`] buckets, counted from its creation, and it slides by whole buckets: a
/// call leaves at the latest when that length has passed, and at the earliest one bucket before. A step clears the
/// buckets it enters, so that a record costs the same at any rate of calls and after any silence.
#[derive(Clone, Debug)]
pub struct TimeWindow {
    origin: Instant,
    /// Of a bucket, in nanoseconds: a record divides by it, and whole words divide fast.
    width: u64,
    buckets: [Tally; Self::BUCKETS],
    /// The number of the newest bucket since `origin`.
    newest: u64,
    total: Tally,
}

impl TimeWindow {
    /// How finely the window slides: by a twentieth of its length.
    pub const BUCKETS: usize = 20;

    /// A window of `length`, empty at `now`. Lengths below 20 ns are taken as 20 ns.
    pub fn new(length: Duration, now: Instant) -> Self {
        Self {
            origin: now,
            width: (nanos(length) / Self::BUCKETS as u64).max(1),
            buckets: [Tally::default(); Self::BUCKETS],
            newest: 0,
            total: Tally::default(),
        }
    }

    /// Counts a call that ended at `now`, or in the newest bucket if that has begun since.
    pub fn record(&mut self, now: Instant, failed: bool, slow: bool) {
        self.slide(now);
        // Four thousand million calls in one window tell all there is to tell.
        if self.total.calls == u32::MAX {
            return;
        }
        let one = Tally::one(failed, slow);
        self.buckets[Self::slot(self.newest)] += one;
        self.total += one;
    }

    fn add_successes(&mut self, calls: u64) {
        let calls = calls.min((u32::MAX - self.total.calls).into()) as u32;
        self.buckets[Self::slot(self.newest)].calls += calls;
        self.total.calls += calls;
    }

    /// What the window holds at `now`.
    pub fn tally(&mut self, now: Instant) -> Tally {
        self.slide(now);
        self.total
    }

    /// When the newest bucket ends, if the clock can tell.
    fn moves(&self) -> Option<Instant> {
        let end = self.newest.saturating_add(1).saturating_mul(self.width);
        self.origin.checked_add(Duration::from_nanos(end))
    }

    /// Forgets every call.
    pub fn clear(&mut self) {
        self.buckets = [Tally::default(); Self::BUCKETS];
        self.total = Tally::default();
    }

    fn slide(&mut self, now: Instant) {
        let target = nanos(now.saturating_duration_since(self.origin)) / self.width;
        if target >= self.newest.saturating_add(Self::BUCKETS as u64) {
            self.clear();
            self.newest = target;
        }
        while self.newest < target {
            self.newest += 1;
            self.total -= std::mem::take(&mut self.buckets[Self::slot(self.newest)]);
        }
    }

    fn slot(bucket: u64) -> usize {
        (bucket % Self::BUCKETS as u64) as usize
    }
}

/// One of the two.
#[derive(Clone, Debug)]
// There is one a breaker, and it stays where it is: a box would only add a step.
#[allow(clippy::large_enum_variant)]
pub enum Window {
    /// The last so many calls.
    Last(CountWindow),
    /// The calls of the last so many seconds.
    Within(TimeWindow),
}

impl Window {
    /// Counts a call that ended at `now`.
    pub fn record(&mut self, now: Instant, failed: bool, slow: bool) {
        match self {
            Self::Last(window) => window.record(failed, slow),
            Self::Within(window) => window.record(now, failed, slow),
        }
    }

    /// Counts calls that neither failed nor were slow, in the time of the last record.
    pub(crate) fn add_successes(&mut self, calls: u64) {
        match self {
            Self::Last(window) => window.add_successes(calls),
            Self::Within(window) => window.add_successes(calls),
        }
    }

    /// What it held at the last look.
    pub(crate) fn held(&self) -> Tally {
        match self {
            Self::Last(window) => window.total,
            Self::Within(window) => window.total,
        }
    }

    /// Until when no call leaves but for another; a second at most where calls do not age.
    pub(crate) fn moves(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Last(_) => now.checked_add(Duration::from_secs(1)),
            Self::Within(window) => window.moves(),
        }
    }

    /// What it holds at `now`.
    pub fn tally(&mut self, now: Instant) -> Tally {
        match self {
            Self::Last(window) => window.tally(),
            Self::Within(window) => window.tally(now),
        }
    }

    /// Forgets every call.
    pub fn clear(&mut self) {
        match self {
            Self::Last(window) => window.clear(),
            Self::Within(window) => window.clear(),
        }
    }
}

/// In whole nanoseconds; what is beyond 584 years counts as that.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn share(part: u32, all: u32) -> f64 {
    // A quotient of whole numbers is the double nearest to it, and so is a literal: 7 of 100 is not below 0.07.
    f64::from(part) / f64::from(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum<'a>(calls: impl IntoIterator<Item = &'a (bool, bool)>) -> Tally {
        let mut total = Tally::default();
        for &(failed, slow) in calls {
            total += Tally::one(failed, slow);
        }
        total
    }

    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_count_window_slides_so_that_an_outage_shows_after_ten_thousand_successes() {
        let mut window = CountWindow::new(100);
        for _ in 0..10_000 {
            window.record(false, false);
        }
        for _ in 0..50 {
            window.record(true, false);
        }
        assert_eq!(window.tally().calls, 100);
        assert_eq!(window.tally().failure_rate(), 0.5);
    }

    #[test]
    fn a_call_leaves_a_time_window_within_a_bucket_of_its_length() {
        let start = start();
        let mut window = TimeWindow::new(Duration::from_secs(10), start);
        window.record(start, true, false);
        assert_eq!(
            window.tally(start + Duration::from_millis(9_999)).failures,
            1
        );
        assert_eq!(window.tally(start + Duration::from_secs(10)).failures, 0);

        window.record(start + Duration::from_millis(10_499), true, false);
        let later = start + Duration::from_millis(19_999);
        assert_eq!(window.tally(later).failures, 1);
        let gone = start + Duration::from_secs(20);
        assert_eq!(window.tally(gone).failures, 0);
    }

    #[test]
    fn a_day_of_silence_empties_a_time_window() {
        let start = start();
        let mut window = TimeWindow::new(Duration::from_millis(1), start);
        window.record(start, true, true);
        let next_day = start + Duration::from_secs(86_400);
        assert_eq!(window.tally(next_day), Tally::default());
        window.record(next_day, false, false);
        assert_eq!(window.tally(next_day), Tally::one(false, false));
    }

    proptest! {
        #[test]
        fn a_count_window_holds_the_last_n_calls(
            size in 1_u32..40,
            calls in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut window = CountWindow::new(size);
            for (i, &(failed, slow)) in calls.iter().enumerate() {
                window.record(failed, slow);
                let from = (i + 1).saturating_sub(size as usize);
                prop_assert_eq!(window.tally(), sum(&calls[from..=i]));
            }
        }

        #[test]
        fn a_time_window_holds_the_calls_of_its_buckets(
            length in 1_u64..5_000,
            calls in prop::collection::vec((0_u64..2_000_000, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let start = start();
            let length = Duration::from_micros(length * 20);
            let width = length.as_micros() / 20;
            let mut window = TimeWindow::new(length, start);
            let mut seen: Vec<(u128, (bool, bool))> = Vec::new();
            let mut age = 0;
            for (step, failed, slow) in calls {
                // Steps from nothing to far beyond the window, small ones more often.
                age += u128::from(step) % (length.as_micros() * 3) / (1 + u128::from(step % 16));
                let now = start + Duration::from_micros(age as u64);
                let bucket = age / width;
                window.record(now, failed, slow);
                seen.push((bucket, (failed, slow)));
                let inside = seen.iter().filter(|(b, _)| b + 20 > bucket).map(|(_, call)| call);
                prop_assert_eq!(window.tally(now), sum(inside));
            }
        }
    }
}
