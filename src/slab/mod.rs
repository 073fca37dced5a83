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
        let left = sync::Mutex::new(Vec::new());
        Self { left }
    }
}

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Mutex, MutexGuard};
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::algo::lanes::{Lanes, lane, lanes};

    struct State {
        value: AtomicU64,
        loans: Lanes<Loans>,
    }

    impl Lend for State {
        fn loans(&self) -> impl Iterator<Item = &Loans> {
            self.loans.iter()
        }
    }

    static SLAB: Slab<Arc<()>, State> = Slab::new();

    fn own(value: &Arc<()>) -> Owner<Arc<()>, State> {
        let new = || State {
            value: AtomicU64::new(0),
            loans: Lanes::new(lanes(), Loans::default),
        };
        let begin = |state: &State| {
            state.value.store(0, Ordering::Relaxed);
            Arc::clone(value)
        };
        SLAB.own(new, begin)
    }

    fn lend(owner: &Owner<Arc<()>, State>) -> Loan<Arc<()>, State> {
        let loan = owner.lend();
        loan.state().loans.at(lane()).begin(lane());
        loan
    }

    fn end(loan: Loan<Arc<()>, State>) {
        loan.state().loans.at(lane()).end(lane());
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
        std::thread::scope(|scope| scope.spawn(|| end(loan)).join().unwrap());
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
