//! The retry budget: how many retries the traffic pays for.
//!
//! Without one, a peer that fails half of its calls gets almost twice as many of them, just when it can least bear
//! it. A [`Budget`] looks back on the calls of the last ten seconds, as Finagle's `RetryBudget` does; [`InFlight`] on those
//! under way, as failsafe-go's `budget` does.
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

mod counts;
mod in_flight;
mod settings;
// The same counts, on loom's primitives.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod model;

pub use counts::Budget;
pub use in_flight::InFlight;

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    pub(super) use crate::algo::lanes::{lanes, mine};
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::counts::SECONDS;
    use super::{Budget, InFlight};

    pub(super) fn start() -> Instant {
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
    fn a_decimal_share_is_taken_as_it_is_written() {
        let budget = Budget::new(0.29, 0);
        let now = start();
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 29);
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
    fn retries_under_way_are_a_share_of_all_calls_under_way() {
        // Share, floor, calls, and the retries that pass at once: one more than the share, which is looked at before.
        for (share, floor, calls, expected) in [
            (0.5, 0, 4, 5),
            (0.2, 0, 8, 3),
            (0.2, 0, 0, 1),
            (0.0, 3, 10, 3),
            (0.5, 2, 0, 2),
            (0.3, 0, 7, 4),
        ] {
            let budget = InFlight::new(share, floor);
            (0..calls).for_each(|_| budget.begin());
            let retries = (0..100).filter(|_| budget.withdraw()).count() as u32;
            assert_eq!(retries, expected, "{share}, {floor}, {calls}");
            assert_eq!(
                (budget.retries(), budget.calls()),
                (retries, calls + retries)
            );
            budget.release();
            assert!(budget.withdraw(), "an ended retry makes room");
            (0..calls).for_each(|_| budget.end());
            assert_eq!(budget.calls(), retries);
            assert!(
                !budget.withdraw(),
                "the calls that paid for them have ended"
            );
        }
    }

    #[test]
    fn what_was_counted_outlasts_a_change_of_the_settings() {
        let budget = Budget::new(0.2, 0);
        let now = start();
        (0..100).for_each(|_| budget.deposit(now));
        (0..5).for_each(|_| assert!(budget.withdraw(now)));
        // Share, floor, and the retries that are left of 100 calls and 5 retries.
        for (share, floor, left) in [
            (0.2, 0, 15),
            (0.0, 0, 0),
            (0.04, 0, 0),
            (0.05, 0, 0),
            (0.06, 0, 1),
            (0.0, 1, 5),
            (0.5, 3, 45),
        ] {
            budget.reconfigure(share, floor);
            assert_eq!((budget.share(), budget.floor()), (share, floor));
            assert_eq!(budget.available(now), left, "{share}, {floor}");
        }
        let later = now + Duration::from_secs(10);
        assert_eq!(
            budget.available(later),
            30,
            "all is forgotten but the floor"
        );
        budget.reconfigure(0.0, 0);
        assert!(!budget.withdraw(later));
    }

    #[test]
    fn retries_under_way_outlast_a_change_of_the_settings() {
        let budget = InFlight::new(0.5, 0);
        (0..8).for_each(|_| budget.begin());
        (0..2).for_each(|_| assert!(budget.withdraw()));
        for (share, floor, left) in [
            (0.0, 0, 0),
            (0.0, 2, 0),
            (0.0, 3, 1),
            (0.1, 0, 0),
            (0.2, 0, 1),
            (0.2, 7, 5),
            (1.0, 0, u32::MAX),
            (7.0, 0, u32::MAX),
        ] {
            budget.reconfigure(share, floor);
            assert_eq!((budget.share(), budget.floor()), (share, floor));
            assert_eq!(budget.available(), left, "{share}, {floor}");
        }
        (0..2).for_each(|_| budget.release());
        budget.reconfigure(0.0, 0);
        assert_eq!((budget.retries(), budget.calls()), (0, 8));
        assert!(!budget.withdraw());
    }

    #[test]
    fn a_share_that_cannot_be_is_refused_and_changes_nothing() {
        let budget = Budget::new(0.2, 3);
        let in_flight = InFlight::new(0.2, 3);
        for share in [-0.1, f64::NAN, f64::INFINITY] {
            let panics = |change: &dyn Fn()| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(change)).is_err()
            };
            assert!(panics(&|| budget.reconfigure(share, 9)));
            assert!(panics(&|| in_flight.reconfigure(share, 9)));
            assert!(panics(&|| drop(Budget::new(share, 0))));
        }
        assert_eq!((budget.share(), budget.floor()), (0.2, 3));
        assert_eq!((in_flight.share(), in_flight.floor()), (0.2, 3));
    }

    proptest! {
        #[test]
        fn as_many_retries_begin_as_are_said_to_be_available(
            share in 0_u32..100,
            floor in 0_u32..20,
            calls in 0_u32..500,
            retries in 0_u32..200,
        ) {
            let budget = InFlight::new(1.0, 0);
            (0..calls).for_each(|_| budget.begin());
            (0..retries).for_each(|_| assert!(budget.withdraw()));
            budget.reconfigure(f64::from(share) / 100.0, floor);
            let available = budget.available();
            let begun = (0..).take_while(|_| budget.withdraw()).count();
            prop_assert_eq!(begun as u32, available);
            prop_assert_eq!(budget.available(), 0);
        }

        #[test]
        fn it_agrees_with_a_list_of_everything_that_happened(
            share in 0_u32..=100,
            floor in 0_u32..3,
            steps in prop::collection::vec((0_u64..3_000, 0_u32..5), 0..300),
        ) {
            let budget = Budget::new(f64::from(share) / 100.0, floor);
            let (mut share, mut floor) = (share, floor);
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
                let paid_for = (share as usize * deposits.len()).max(floor as usize * 1000) / 100;
                let left = paid_for.saturating_sub(retries.len());
                prop_assert_eq!(budget.available(origin + now), left as u32);
                match kind {
                    0 => {
                        prop_assert_eq!(budget.withdraw(origin + now), left > 0);
                        if left > 0 {
                            retries.push(now);
                        }
                    }
                    1 => {
                        if let Some(then) = retries.pop() {
                            budget.refund(origin + then);
                        }
                    }
                    2 => {
                        (share, floor) = ((share * 7 + 13) % 101, (floor + 1) % 3);
                        budget.reconfigure(f64::from(share) / 100.0, floor);
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
