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
//! let budget = Budget::new(0.2, 0);
//! for _ in 0..10 {
//!     budget.deposit(now);
//! }
//! assert!(budget.withdraw(now));
//! assert!(budget.withdraw(now));
//! assert!(!budget.withdraw(now), "ten calls pay for two retries");
//! # }
//! # at_some_time(buttress::clock::now());
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Lets a retry pass while the window holds fewer than a share of its first attempts, or than a floor.
///
/// The window is ten whole seconds, the one that is being filled included, counted from the first use. Every call
/// deposits, so the counts are atomics and no call waits for another.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    floor: f64,
    origin: OnceLock<Instant>,
    deposits: Window,
    withdrawals: Window,
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
            floor: f64::from(floor) * SECONDS as f64,
            origin: OnceLock::new(),
            deposits: Window::default(),
            withdrawals: Window::default(),
        }
    }

    /// Counts a first attempt.
    pub fn deposit(&self, now: Instant) {
        self.deposits.add_if(self.second(now), || true);
    }

    /// Takes a retry out, if the budget has one left.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        // Asked again where another withdrawal came first, so that two never share the last token. Only a race over
        // the turn of a second can let one too many pass.
        self.withdrawals.add_if(second, || {
            let paid_for = (self.share * self.deposits.sum(second) as f64).max(self.floor);
            // The product of a decimal share is a hair off: 0.29 of 100 is 28.999….
            (self.withdrawals.sum(second) + 1) as f64 <= paid_for + 1e-6
        })
    }

    /// Puts back the retry that was taken out at `then`, because it was never made.
    pub fn refund(&self, then: Instant) {
        self.withdrawals.take_back(self.second(then));
    }

    /// The number of the second in which `now` lies.
    fn second(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        now.saturating_duration_since(origin).as_secs()
    }
}

/// How many there were in each of the last ten seconds. Each slot holds the number of its second in the upper half
/// and the count in the lower, so that one exchange moves it on.
///
/// All orderings are relaxed: a slot guards nothing but itself.
#[derive(Debug, Default)]
struct Window([AtomicU64; SECONDS as usize]);

impl Window {
    fn add_if(&self, second: u64, allowed: impl Fn() -> bool) -> bool {
        self.slot(second)
            .fetch_update(Relaxed, Relaxed, |slot| {
                let newer = slot.max(second << 32);
                allowed().then_some(newer + 1)
            })
            .is_ok()
    }

    fn take_back(&self, second: u64) {
        // Nothing to do where the slot has moved on: the window has forgotten the retry already.
        let _ = self.slot(second).fetch_update(Relaxed, Relaxed, |slot| {
            (slot >> 32 == second && count(slot) > 0).then(|| slot - 1)
        });
    }

    fn sum(&self, second: u64) -> u64 {
        let slots = self.0.iter().map(|slot| slot.load(Relaxed));
        slots
            .filter(|slot| (slot >> 32) + SECONDS > second)
            .map(count)
            .sum()
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.0[(second % SECONDS) as usize]
    }
}

fn count(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

const SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            let budget = Budget::new(share, floor);
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
        let budget = Budget::new(0.2, 3);
        let now = start();
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 30);
        assert!(!budget.withdraw(now + Duration::from_millis(9_999)));
        assert!(budget.withdraw(now + Duration::from_secs(10)));
    }

    #[test]
    fn an_idle_budget_forgets_its_deposits() {
        let budget = Budget::new(0.5, 0);
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
        let budget = Budget::new(1.0, 0);
        let now = start() + Duration::from_secs(100);
        budget.deposit(now);
        budget.deposit(now + Duration::from_secs(5));
        budget.deposit(now);
        assert_eq!((0..10).filter(|_| budget.withdraw(now)).count(), 3);
    }

    #[test]
    fn a_refund_is_worth_one_retry_and_no_more() {
        let budget = Budget::new(0.0, 1);
        let now = start();
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 10);
        budget.refund(now);
        assert!(budget.withdraw(now + Duration::from_secs(3)));
        assert!(!budget.withdraw(now + Duration::from_secs(3)));
        // Ten seconds later its second is forgotten, and another has its place.
        let later = now + Duration::from_secs(10);
        assert!(budget.withdraw(later));
        budget.refund(now);
        assert_eq!((0..100).filter(|_| budget.withdraw(later)).count(), 8);
    }

    #[test]
    fn threads_lose_no_deposit_and_share_no_token() {
        let budget = Budget::new(0.1, 0);
        let now = start();
        let each = |work: &(dyn Fn() -> usize + Sync)| -> usize {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).sum()
            })
        };
        each(&|| (0..2500).map(|_| budget.deposit(now)).count());
        let taken = each(&|| (0..2500).filter(|_| budget.withdraw(now)).count());
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_everything_that_happened(
            share in 0_u32..=100,
            floor in 0_u32..3,
            steps in prop::collection::vec((0_u64..3_000, 0_u32..4), 0..300),
        ) {
            let budget = Budget::new(f64::from(share) / 100.0, floor);
            let origin = start();
            // The first use is where its seconds are counted from.
            budget.refund(origin);
            let mut now = Duration::ZERO;
            let mut deposits: Vec<u64> = Vec::new();
            let mut retries: Vec<Duration> = Vec::new();
            for (pause, kind) in steps {
                now += Duration::from_millis(pause);
                let second = now.as_secs();
                deposits.retain(|then| then + SECONDS > second);
                retries.retain(|then| then.as_secs() + SECONDS > second);
                match kind {
                    0 => {
                        let expected = (retries.len() + 1) * 100
                            <= (share as usize * deposits.len()).max(floor as usize * 1000);
                        prop_assert_eq!(budget.withdraw(origin + now), expected);
                        if expected {
                            retries.push(now);
                        }
                    }
                    1 => {
                        if let Some(then) = retries.pop() {
                            budget.refund(origin + then);
                        }
                    }
                    _ => {
                        budget.deposit(origin + now);
                        deposits.push(second);
                    }
                }
            }
        }
    }
}
