//! The counts on loom's primitives, so that the interleavings of deposits, withdrawals and refunds are run through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread;

use self::counts::Budget;
use self::in_flight::InFlight;
use crate::model::{check, take_lane};

mod sync {
    pub(super) use loom::sync::atomic::Ordering;

    pub(super) use crate::model::{AtomicU64, AtomicUsize, lanes, mine};
}

#[path = "counts.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod counts;
#[path = "in_flight.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod in_flight;

use super::settings;

#[test]
fn two_threads_do_not_share_the_last_token() {
    model(|budget, now| {
        budget.deposit(now);
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.withdraw(now))
        };
        let mine = budget.withdraw(now);
        assert!(mine != other.join().unwrap());
    });
}

#[test]
fn no_deposit_is_lost_at_the_turn_of_a_slot() {
    model(|budget, now| {
        budget.deposit(now);
        let later = now + Duration::from_secs(10);
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.deposit(later))
        };
        budget.deposit(later);
        other.join().unwrap();
        assert!(budget.withdraw(later));
        assert!(budget.withdraw(later));
        assert!(!budget.withdraw(later), "the first deposit is forgotten");
    });
}

#[test]
fn deposits_in_two_lanes_add_up() {
    model(|budget, now| {
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                take_lane(1);
                budget.deposit(now);
                budget.deposit(now);
            })
        };
        budget.deposit(now);
        let early = budget.withdraw(now);
        other.join().unwrap();
        assert!(early, "the first is this thread's own");
        assert!(budget.withdraw(now));
        assert!(budget.withdraw(now));
        assert!(!budget.withdraw(now));
    });
}

#[test]
fn a_refund_beside_a_withdrawal_is_worth_one_token() {
    model(|budget, now| {
        budget.deposit(now);
        assert!(budget.withdraw(now));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.refund(now))
        };
        let early = budget.withdraw(now);
        other.join().unwrap();
        assert!(early != budget.withdraw(now));
    });
}

#[test]
fn two_threads_do_not_share_the_last_place_and_none_is_lost() {
    check(|| {
        let budget = Arc::new(InFlight::new(0.0, 1));
        let retry = |budget: Arc<InFlight>| {
            let passes = budget.withdraw();
            if passes {
                assert_eq!(budget.retries(), 1);
                budget.release();
            }
            passes
        };
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || retry(budget))
        };
        budget.begin();
        let mine = retry(Arc::clone(&budget));
        assert!(other.join().unwrap() || mine);
        budget.end();
        assert_eq!((budget.retries(), budget.calls()), (0, 0));
    });
}

/// A budget of one retry for each deposit.
fn model(run: impl Fn(Arc<Budget>, Instant) + Send + Sync + 'static) {
    let now = super::tests::start();
    check(move || run(Arc::new(Budget::new(1.0, 0)), now));
}
