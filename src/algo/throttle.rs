//! Client-side throttling: holds back what the peer would refuse anyway.
//!
//! A call is held back with probability `max(0, (requests − k · accepts) / (requests + 1))` over a sliding window, in
//! which those held back are requests too (*Site Reliability Engineering*, chapter 21, "Handling Overload").
//!
//! ```
//! use buttress::algo::throttle::Throttle;
//!
//! # let now = buttress::clock::now();
//! let mut throttle = Throttle::default();
//! for _ in 0..10 {
//!     throttle.record(false, now);
//! }
//! assert!((throttle.rejection_rate(now) - 0.9).abs() < 1e-9);
//! ```

use std::time::{Duration, Instant};

use super::Rng;
use super::window::TimeWindow;

/// How much of the traffic is held back, by how much of it the peer accepts.
#[derive(Clone, Debug)]
pub struct Throttle {
    k: f64,
    most: f64,
    length: Duration,
    /// Made at the first use, which is when time begins.
    window: Option<TimeWindow>,
}

impl Throttle {
    /// Lets through about `k` times what the peer accepts. Below 2 it holds back sooner, and sees later that the peer
    /// is well again. As a threshold on the share of accepted calls it is `1 / k`.
    ///
    /// # Panics
    ///
    /// If `k` is below 1: it would hold back calls from a peer that accepts them all.
    #[must_use]
    #[track_caller]
    pub fn k(mut self, k: f64) -> Self {
        assert!(k >= 1.0, "a factor of {k} holds back what is accepted");
        self.k = k;
        self
    }

    /// Never holds back more than this share, so that somebody notices when the peer is well again.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn most(mut self, share: f64) -> Self {
        assert!(
            share > 0.0 && share <= 1.0,
            "a share of {share} is not above 0 and at most 1"
        );
        self.most = share;
        self
    }

    /// Looks at the calls of so long.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn window(mut self, length: Duration) -> Self {
        assert!(!length.is_zero(), "a window of no length sees nothing");
        self.length = length;
        self
    }

    /// Counts a call and whether the peer accepted it. One that was held back was not.
    pub fn record(&mut self, accepted: bool, now: Instant) {
        self.counts(now).record(now, !accepted, false);
    }

    /// Whether to hold back a call; if so, it is counted.
    pub fn holds_back(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let rate = self.rejection_rate(now);
        let held_back = rate > 0.0 && rng.unit() < rate;
        if held_back {
            self.record(false, now);
        }
        held_back
    }

    /// The share of calls that is held back now, from 0 to 1.
    pub fn rejection_rate(&mut self, now: Instant) -> f64 {
        let tally = self.counts(now).tally(now);
        let requests = f64::from(tally.calls);
        let accepts = f64::from(tally.calls - tally.failures);
        ((requests - self.k * accepts) / (requests + 1.0)).clamp(0.0, self.most)
    }

    fn counts(&mut self, now: Instant) -> &mut TimeWindow {
        let length = self.length;
        self.window
            .get_or_insert_with(|| TimeWindow::new(length, now))
    }
}

/// The book's: twice what is accepted, over two minutes; at most nine of ten are held back.
impl Default for Throttle {
    fn default() -> Self {
        Self {
            k: 2.0,
            most: 0.9,
            length: Duration::from_secs(120),
            window: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_published_formula() {
        let now = crate::clock::now();
        // k, requests, accepts, rate.
        for (k, requests, accepts, expected) in [
            (2.0, 0, 0, 0.0),
            (2.0, 100, 100, 0.0),
            (2.0, 100, 50, 0.0),
            (2.0, 99, 25, 0.49),
            (2.0, 99, 0, 0.9),
            (1.0 / 0.9, 1, 0, 0.5),
            (1.0, 99, 49, 0.5),
        ] {
            let mut throttle = Throttle::default().k(k);
            for i in 0..requests {
                throttle.record(i < accepts, now);
            }
            let rate = throttle.rejection_rate(now);
            assert!((rate - expected).abs() < 1e-9, "{rate} for {expected}");
        }
    }

    #[test]
    fn it_forgets_after_its_window() {
        let now = crate::clock::now();
        let mut throttle = Throttle::default();
        throttle.record(false, now);
        assert_eq!(throttle.rejection_rate(now), 0.5);
        assert_eq!(throttle.rejection_rate(now + Duration::from_secs(120)), 0.0);
    }

    #[test]
    fn a_peer_is_sent_about_twice_what_it_accepts() {
        crate::rng::seed(1);
        let mut now = crate::clock::now();
        let mut throttle = Throttle::default();
        // A hundred calls a second; the peer accepts the first twenty that reach it in each.
        let mut sent = 0;
        for second in 0..600 {
            let mut reached = 0;
            for _ in 0..100 {
                now += Duration::from_millis(10);
                if !throttle.holds_back(now, &mut crate::rng::ThreadRng) {
                    reached += 1;
                    throttle.record(reached <= 20, now);
                }
            }
            sent += if second < 300 { 0 } else { reached };
        }
        let a_second = f64::from(sent) / 300.0;
        assert!((35.0..45.0).contains(&a_second), "{a_second}");
    }
}
