use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, Weak};

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, fence};
use crate::algo::lanes::SHARED;

/// Cells with a state `S` for an owner `T` each. There are as many as there ever were owners, and calls that outlived
/// theirs, at once.
pub(crate) struct Slab<T: 'static, S: 'static> {
    pub(super) left: Mutex<Left<T, S>>,
}

/// Cells without an owner.
pub(super) struct Left<T: 'static, S: 'static> {
    idle: Vec<&'static Cell<T, S>>,
    /// In which there may still be calls. Who was left first is looked at first.
    unsure: VecDeque<&'static Cell<T, S>>,
}

impl<T, S> Left<T, S> {
    pub(super) const fn new() -> Self {
        Self {
            idle: Vec::new(),
            unsure: VecDeque::new(),
        }
    }
}

/// What can be lent to calls: in each of its lanes it counts them.
pub(crate) trait Lend: 'static {
    fn loans(&self) -> impl Iterator<Item = &Loans>;
}

impl<T, S: Lend> Slab<T, S> {
    /// An owner with a cell of its own, the state of which it begins: that may be another's, who left it.
    pub(crate) fn own(
        &'static self,
        new: impl FnOnce() -> S,
        begin: impl FnOnce(&'static S) -> T,
    ) -> Owner<T, S> {
        let cell = self.find().unwrap_or_else(|| {
            Box::leak(Box::new(Cell {
                state: new(),
                owner: Mutex::new(Weak::new()),
            }))
        });
        let tenancy = Tenancy { cell, slab: self };
        let value = begin(&cell.state);
        let owned = Arc::new(Owned { value, tenancy });
        *lock(&cell.owner) = Arc::downgrade(&owned);
        Owner(owned)
    }

    /// A cell that no call is in.
    fn find(&self) -> Option<&'static Cell<T, S>> {
        let mut left = lock(&self.left);
        for _ in 0..LOOKED_AT.min(left.unsure.len()) {
            let cell = left.unsure.pop_front()?;
            match cell.is_idle() {
                true => left.idle.push(cell),
                false => left.unsure.push_back(cell),
            }
        }
        left.idle.pop()
    }
}

/// What has a cell until its last clone is dropped. Calls under way then find it gone when they end.
pub(crate) struct Owner<T: 'static, S: 'static>(Arc<Owned<T, S>>);

struct Owned<T: 'static, S: 'static> {
    value: T,
    // Dropped last: not before is the cell another's.
    tenancy: Tenancy<T, S>,
}

struct Tenancy<T: 'static, S: 'static> {
    cell: &'static Cell<T, S>,
    slab: &'static Slab<T, S>,
}

impl<T, S> Drop for Tenancy<T, S> {
    fn drop(&mut self) {
        // Else it would keep the owner's memory.
        *lock(&self.cell.owner) = Weak::new();
        lock(&self.slab.left).unsure.push_back(self.cell);
    }
}

impl<T, S: Lend> Owner<T, S> {
    #[inline(always)]
    pub(crate) fn state(&self) -> &'static S {
        &self.0.tenancy.cell.state
    }

    /// For a call that was [counted](Loans::begin).
    #[inline(always)]
    pub(crate) fn lend(&self) -> Loan<T, S> {
        Loan(self.0.tenancy.cell)
    }

    /// Whether there is a clone, or a loan that has not ended.
    pub(crate) fn is_in_use(&self) -> bool {
        let cloned = Arc::strong_count(&self.0) > 1;
        // What a clone has lent that is gone is seen after it.
        fence(Ordering::Acquire);
        cloned || !self.0.tenancy.cell.is_idle()
    }
}

impl<T, S> Clone for Owner<T, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, S> Deref for Owner<T, S> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug, S> fmt::Debug for Owner<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// What a call has of a cell, which is nobody else's until that has [ended](Loans::end).
pub(crate) struct Loan<T: 'static, S: 'static>(&'static Cell<T, S>);

// By hand: nothing in the cell is copied.
impl<T, S> Clone for Loan<T, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, S> Copy for Loan<T, S> {}

impl<T, S> Loan<T, S> {
    #[inline(always)]
    pub(crate) fn state(self) -> &'static S {
        &self.0.state
    }

    /// `None` if it is gone.
    pub(crate) fn owner(self) -> Option<Owner<T, S>> {
        lock(&self.0.owner).upgrade().map(Owner)
    }
}

pub(super) struct Cell<T: 'static, S: 'static> {
    state: S,
    owner: Mutex<Weak<Owned<T, S>>>,
}

impl<T, S: Lend> Cell<T, S> {
    /// Whether all loans have ended.
    fn is_idle(&self) -> bool {
        let sum = |which: fn(&Loans) -> &AtomicU64| {
            let each = self.state.loans().map(which);
            each.fold(0_u64, |sum, it| {
                sum.wrapping_add(it.load(Ordering::Acquire))
            })
        };
        // In this order: of an end that is seen, so is the begin.
        let ended = sum(|it| &it.ended);
        ended == sum(|it| &it.begun)
    }
}

/// How many loans began and ended in a lane. Both go round.
#[derive(Debug, Default)]
pub(crate) struct Loans {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Loans {
    /// Counts a loan of the cell that these are of. They are those of the current thread's `lane`.
    #[inline(always)]
    pub(crate) fn begin(&self, lane: usize) {
        add_one(&self.begun, lane);
    }

    /// Counts its end, in whatever lane that is.
    #[inline(always)]
    pub(crate) fn end(&self, lane: usize) {
        add_one(&self.ended, lane);
    }
}

/// Released, so that whoever sees the last of them ended sees what they did.
#[inline(always)]
fn add_one(count: &AtomicU64, lane: usize) {
    if lane == SHARED {
        count.fetch_add(1, Ordering::Release);
    } else {
        let next = count.load(Ordering::Relaxed).wrapping_add(1);
        count.store(next, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At a time, of the cells in which there may be calls.
const LOOKED_AT: usize = 8;
