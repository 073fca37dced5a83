//! State that calls reach without counting themselves in and out by atomic steps.
//!
//! A call has to find what it counts in, wherever its future goes, and a share of an `Arc` costs two atomic steps. So the
//! state is in a cell that is never freed, and a call has a plain reference. Once the cell's owner is gone and the last
//! call has ended, it is used again, for another owner. Which calls have not ended is counted in lanes, where each
//! thread counts for itself.

mod cells;
// The same cells, on loom's primitives.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod model;

pub(crate) use cells::{Lend, Loan, Loans, Owner, Slab};

impl<T, S> Slab<T, S> {
    pub(crate) const fn new() -> Self {
        let left = sync::Mutex::new(cells::Left::new());
        Self { left }
    }
}

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Mutex, MutexGuard};
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::*;
    use crate::algo::lanes::{Lanes, lane, lanes};

    struct State {
        value: AtomicU64,
        loans: Lanes<Loans>,
    }

    impl State {
        fn new() -> Self {
            Self {
                value: AtomicU64::new(0),
                loans: Lanes::new(lanes(), Loans::default),
            }
        }
    }

    impl Lend for State {
        fn loans(&self) -> impl Iterator<Item = &Loans> {
            self.loans.iter()
        }
    }

    static SLAB: Slab<Arc<()>, State> = Slab::new();

    fn own(value: &Arc<()>) -> Owner<Arc<()>, State> {
        let begin = |state: &State| {
            state.value.store(0, Ordering::Relaxed);
            Arc::clone(value)
        };
        SLAB.own(State::new, begin)
    }

    fn lend<T>(owner: &Owner<T, State>) -> Loan<T, State> {
        let loan = owner.lend();
        loan.state().loans[lane()].begin(lane());
        loan
    }

    fn end<T>(loan: Loan<T, State>) {
        loan.state().loans[lane()].end(lane());
    }

    #[test]
    fn there_are_as_many_cells_as_owners_and_calls_that_outlived_theirs_at_once() {
        static SLAB: Slab<(), State> = Slab::new();
        let cells = Cell::new(0);
        let new = || {
            cells.set(cells.get() + 1);
            State::new()
        };
        let mut under_way = VecDeque::new();
        for _ in 0..10_000 {
            let owner = SLAB.own(new, |_| ());
            under_way.push_back(lend(&owner));
            drop(owner);
            if under_way.len() > 20 {
                end(under_way.pop_front().unwrap());
            }
        }
        // One that ended may be found a little later.
        assert!(cells.get() <= 30, "{}", cells.get());
    }

    #[test]
    fn an_owner_is_in_use_while_one_call_is_under_way_and_others_come_and_go() {
        let owner = own(&Arc::new(()));
        let long = lend(&owner);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    end(lend(&owner));
                }
            });
            let in_use = (0..100_000).all(|_| owner.is_in_use());
            over.store(true, Ordering::Relaxed);
            assert!(in_use);
        });
        end(long);
        assert!(!owner.is_in_use());
    }

    #[test]
    fn a_cell_is_used_again_once_its_owner_is_gone_and_its_last_loan_has_ended() {
        let value = Arc::new(());
        let first = own(&value);
        let loan = lend(&first);
        assert!(first.is_in_use());
        loan.state().value.store(7, Ordering::Relaxed);
        assert!(loan.owner().is_some());
        drop(first);
        assert_eq!(Arc::strong_count(&value), 1, "a call keeps no owner");
        assert!(loan.owner().is_none());

        let second = own(&value);
        let other = lend(&second);
        assert!(!std::ptr::eq(loan.state(), other.state()));
        assert_eq!(loan.state().value.load(Ordering::Relaxed), 7);
        // On whatever thread it ends.
        thread::scope(|scope| scope.spawn(|| end(loan)).join().unwrap());
        end(other);
        assert!(!second.is_in_use());

        let third = own(&value);
        let again = lend(&third);
        assert!(std::ptr::eq(loan.state(), again.state()));
        assert_eq!(again.state().value.load(Ordering::Relaxed), 0);
        assert!(again.owner().is_some());
        end(again);
        assert!(!third.is_in_use());
        assert!(third.clone().is_in_use());
    }
}
