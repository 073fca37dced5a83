//! The cells on loom's primitives, so that the interleavings of owners and loans are run through.

use loom::thread;

use self::cells::{Left, Lend, Loan, Loans, Owner, Slab};
use self::sync::{AtomicU64, Mutex, Ordering};
use crate::algo::lanes::Lanes;
use crate::model::{check, lane, lanes, take_lane};

mod sync {
    pub(super) use loom::sync::atomic::{Ordering, fence};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) use crate::model::AtomicU64;
}

#[path = "cells.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod cells;

#[test]
fn a_cell_is_used_again_only_after_all_that_its_loans_did() {
    check(|| {
        let slab = slab();
        let first = own(slab, |_| ());
        let (one, two) = (lend(&first), lend(&first));
        let end = |loan: Loan<(), State>, mine| {
            thread::spawn(move || {
                take_lane(mine);
                loan.state().done.fetch_add(1, Ordering::Relaxed);
                end(loan);
            })
        };
        let ends = [end(one, 0), end(two, 1)];
        drop(first);
        // Another's, or as the two left it.
        let second = own(slab, |state| {
            let done = state.done.load(Ordering::Relaxed);
            assert!(done == 0 || done == 2, "taken from {done}");
        });
        for end in ends {
            end.join().unwrap();
        }
        assert!(!second.is_in_use());
    });
}

#[test]
fn a_loan_that_finds_its_owner_keeps_it_and_its_cell() {
    check(|| {
        let slab = slab();
        let first = own(slab, |state| state.done.store(1, Ordering::Relaxed));
        let loan = lend(&first);
        let other = thread::spawn(move || {
            let owner = loan.owner();
            end(loan);
            if owner.is_some() {
                assert_eq!(loan.state().done.load(Ordering::Relaxed), 1);
            }
        });
        drop(first);
        drop(own(slab, |state| state.done.store(2, Ordering::Relaxed)));
        other.join().unwrap();
    });
}

#[test]
fn an_owner_is_in_use_while_one_call_is_under_way_and_another_comes_and_goes() {
    check(|| {
        let owner = own(slab(), |_| ());
        let long = lend(&owner);
        let other = {
            // As a thread has that found the owner behind a lock.
            let next = owner.lend();
            thread::spawn(move || {
                take_lane(1);
                next.state().lanes[1].begin(1);
                end(next);
            })
        };
        assert!(owner.is_in_use());
        other.join().unwrap();
        end(long);
        assert!(!owner.is_in_use());
    });
}

struct State {
    done: AtomicU64,
    lanes: Lanes<Loans>,
}

impl Lend for State {
    fn loans(&self) -> impl Iterator<Item = &Loans> {
        self.lanes.iter()
    }
}

/// What one run leaves is of no use to the next.
fn slab() -> &'static Slab<(), State> {
    let left = Mutex::new(Left::new());
    Box::leak(Box::new(Slab { left }))
}

fn own(slab: &'static Slab<(), State>, begin: impl FnOnce(&State)) -> Owner<(), State> {
    let new = || State {
        done: AtomicU64::new(0),
        lanes: Lanes::new(lanes(), Loans::default),
    };
    slab.own(new, begin)
}

fn lend(owner: &Owner<(), State>) -> Loan<(), State> {
    let loan = owner.lend();
    loan.state().lanes[lane()].begin(lane());
    loan
}

fn end(loan: Loan<(), State>) {
    loan.state().lanes[lane()].end(lane());
}
