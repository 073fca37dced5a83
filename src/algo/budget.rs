//! The retry budget: how many retries the traffic of the last ten seconds pays for.
//!
//! Without one, a peer that fails half of its calls gets almost twice as many of them, just when it can least bear
//! it. The form is that of Finagle's `RetryBudget`.
//!
//! ```
//! use std::time::Instant;
//! use buttress::algo::budget::Budget;
//!
//! # fn at_some_time(now: Instant) {
//! let mut budget = Budget::new(0.2, 0);
//! for _ in 0..10 {
//!     budget.deposit(now);
//! }
//! assert!(budget.withdraw(now));
//! assert!(budget.withdraw(now));
//! assert!(!budget.withdraw(now), "ten calls pay for two retries");
//! # }
//! # at_some_time(buttress::clock::now());
//! ```

use std::time::{Duration, Instant};

/// Lets a retry pass while the window holds fewer than a share of its first attempts, or than a floor.
///
/// The window is ten seconds in ten buckets, the one that is being filled included.
#[derive(Clone, Debug)]
pub struct Budget {
    share: f64,
    floor: f64,
    origin: Option<Instant>,
    /// The number of the newest bucket since `origin`.
    newest: u64,
    buckets: [Counts; BUCKETS as usize],
    sum: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    deposits: u64,
    withdrawals: u64,
}

impl Budget {
    /// A budget of `share` retries for each first attempt (0.2 is a fifth), and of `floor` a second, whichever is
    /// more.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    pub fn new(share: f64, floor: u32) -> Self {
        assert!(
            share.is_finite() && share >= 0.0,
            "the share of a retry budget must not be {share}"
        );
        Self {
            share,
            floor: f64::from(floor) * BUCKETS as f64 * BUCKET.as_secs_f64(),
            origin: None,
            newest: 0,
            buckets: Default::default(),
            sum: Counts::default(),
        }
    }

    /// Counts a first attempt.
    pub fn deposit(&mut self, now: Instant) {
        self.slide(now).deposits += 1;
        self.sum.deposits += 1;
    }

    /// Takes a retry out, if the budget has one left.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.slide(now);
        let paid_for = (self.share * self.sum.deposits as f64).max(self.floor);
        // The product of a decimal share is a hair off: 0.29 of 100 is 28.999….
        if (self.sum.withdrawals + 1) as f64 > paid_for + 1e-6 {
            return false;
        }
        self.slide(now).withdrawals += 1;
        self.sum.withdrawals += 1;
        true
    }

    /// Forgets what is older than the window; the bucket of `now`.
    fn slide(&mut self, now: Instant) -> &mut Counts {
        let origin = *self.origin.get_or_insert(now);
        let bucket = now.saturating_duration_since(origin).as_secs() / BUCKET.as_secs();
        let passed = bucket.saturating_sub(self.newest);
        for step in 1..=passed.min(BUCKETS) {
            let oldest = &mut self.buckets[((self.newest + step) % BUCKETS) as usize];
            self.sum.deposits -= oldest.deposits;
            self.sum.withdrawals -= oldest.withdrawals;
            *oldest = Counts::default();
        }
        self.newest += passed;
        &mut self.buckets[(self.newest % BUCKETS) as usize]
    }
}

const BUCKET: Duration = Duration::from_secs(1);
const BUCKETS: u64 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn a_half_failing_peer_gets_a_fifth_more_calls_at_most() {
        // Calls a second, share, floor, greatest share of retries.
        let table = [
            (1000, 0.2, 3, 0.2),
            (100, 0.2, 3, 0.2),
            (1000, 0.1, 3, 0.1),
            (1000, 0.2, 0, 0.2),
            (10, 0.2, 3, 0.3),
        ];
        for (rate, share, floor, most) in table {
            let mut budget = Budget::new(share, floor);
            let mut now = start();
            let (mut calls, mut retries) = (0_u32, 0_u32);
            for n in 0..rate * 60 {
                now += Duration::from_secs(1) / rate;
                budget.deposit(now);
                calls += 1;
                // Every second attempt fails; up to nine retries a call.
                let mut fails = n % 2 == 0;
                for attempt in 1..10 {
                    if !fails || !budget.withdraw(now) {
                        break;
                    }
                    retries += 1;
                    fails = attempt % 2 == 0;
                }
            }
            // The floor of the first window comes on top.
            let allowed = most * f64::from(calls) + f64::from(floor * 10);
            assert!(
                f64::from(retries) <= allowed,
                "{rate}/s, {share}, {floor}: {retries} retries for {calls} calls"
            );
        }
    }

    #[test]
    fn the_floor_serves_a_client_with_little_traffic() {
        let mut budget = Budget::new(0.2, 3);
        let now = start();
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 30);
        assert!(!budget.withdraw(now + Duration::from_millis(9_999)));
        assert!(budget.withdraw(now + Duration::from_secs(10)));
    }

    #[test]
    fn an_idle_budget_forgets_its_deposits() {
        let mut budget = Budget::new(0.5, 0);
        let now = start();
        for _ in 0..1000 {
            budget.deposit(now);
        }
        assert!(budget.withdraw(now + Duration::from_secs(9)));
        assert!(!budget.withdraw(now + Duration::from_secs(10)));
        assert!(!budget.withdraw(now + Duration::from_secs(1 << 30)));
    }

    #[test]
    fn a_moment_that_is_passed_in_late_counts_as_now() {
        let mut budget = Budget::new(1.0, 0);
        let now = start() + Duration::from_secs(100);
        budget.deposit(now);
        budget.deposit(now + Duration::from_secs(5));
        budget.deposit(now);
        assert_eq!((0..10).filter(|_| budget.withdraw(now)).count(), 3);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_everything_that_happened(
            share in 0_u32..=100,
            floor in 0_u32..3,
            steps in prop::collection::vec((0_u64..3_000, 0_u32..3), 0..300),
        ) {
            let mut budget = Budget::new(f64::from(share) / 100.0, floor);
            let origin = start();
            let mut now = Duration::ZERO;
            let mut happened: Vec<(u64, bool)> = Vec::new();
            for (at, (pause, kind)) in steps.into_iter().enumerate() {
                if at > 0 {
                    now += Duration::from_millis(pause);
                }
                let bucket = now.as_secs();
                happened.retain(|(other, _)| other + BUCKETS > bucket);
                if kind > 0 {
                    budget.deposit(origin + now);
                    happened.push((bucket, true));
                } else {
                    let deposits = happened.iter().filter(|(_, deposit)| *deposit).count();
                    let retries = happened.len() - deposits;
                    let expected = (retries as u32 + 1) * 100
                        <= (share * deposits as u32).max(floor * 1000);
                    prop_assert_eq!(budget.withdraw(origin + now), expected);
                    if expected {
                        happened.push((bucket, false));
                    }
                }
            }
        }
    }
}
