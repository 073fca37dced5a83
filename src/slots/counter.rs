use std::fmt;
use std::mem;

use super::line::Order;
use super::place::{Place, Waiter};
use super::shared::{Lane, Shared, TOP};
use super::shares::Shares;
use super::slab;
use super::sync::{Arc, mine};
use crate::clock;
use crate::error::Reason;
use crate::slab::{Loan, Owner};

/// A number of slots and the line in front of them. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    owner: Owner<(), Shared>,
    partition: usize,
}

/// What a caller that may wait is given.
pub(crate) enum Admission {
    Permit(Permit),
    Place(Place),
    QueueFull,
}

impl Slots {
    /// The highest level. Only those of it may fill all slots.
    pub(crate) const TOP: u8 = TOP;

    pub(crate) fn new(limit: usize) -> Self {
        Self::shared_out(limit, &[])
    }

    /// Slots of which each partition has a share. This handle takes from what they leave.
    pub(crate) fn shared_out(limit: usize, shares: &[f64]) -> Self {
        Self {
            owner: slab().own(Shared::new, |shared| shared.begin(limit, shares)),
            partition: Shares::REST,
        }
    }

    /// The same slots, taken for that partition. Where there are partitions nobody may wait: a line would let those in
    /// front keep a partition from its share.
    pub(crate) fn of(&self, partition: usize) -> Self {
        Self {
            partition,
            ..self.clone()
        }
    }

    /// Says where in the line the next ones that come stand.
    pub(crate) fn order(&self, order: Order) {
        self.shared().lock().reorder(order);
    }

    pub(crate) fn order_now(&self) -> Order {
        self.shared().lock().order()
    }

    pub(crate) fn limit(&self) -> usize {
        self.shared().limit()
    }

    /// How many slots the partition has for itself.
    pub(crate) fn share(&self) -> usize {
        self.shared().share_of(self.partition)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.shared().in_flight()
    }

    /// How many of them are the partition's.
    pub(crate) fn in_flight_here(&self) -> usize {
        self.shared().in_flight_of(self.partition)
    }

    /// Whether a slot is taken, somebody waits, or there is a clone.
    pub(crate) fn is_in_use(&self) -> bool {
        self.owner.is_in_use()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.shared().lock().len()
    }

    /// Takes a slot if there is one, for those who keep these slots until they [give it back](Self::give_back).
    #[inline(always)]
    pub(crate) fn take(&self) -> bool {
        let shared = self.shared();
        mine(&shared.lanes).0.take() || shared.take(self.partition, TOP)
    }

    #[inline(always)]
    pub(crate) fn give_back(&self) {
        let shared = self.shared();
        if !mine(&shared.lanes).0.keep() {
            shared.give_back(self.partition);
        }
    }

    #[inline(always)]
    pub(crate) fn try_take(&self, level: u8) -> Option<Permit> {
        let (mine, lane) = mine(&self.shared().lanes);
        let taken = level == TOP && mine.take();
        (taken || self.shared().take(self.partition, level)).then(|| self.permit_in(mine, lane))
    }

    /// A slot if there is one, else a place in the line unless that is `full` with so many; then one of a lower level
    /// gives way, or one of a caller that has more waiting, and is refused with `reason`.
    pub(crate) fn take_or_queue(
        &self,
        level: u8,
        caller: Option<u64>,
        reason: Reason,
        full: impl FnOnce(usize) -> bool,
    ) -> Admission {
        if let Some(permit) = self.try_take(level) {
            return Admission::Permit(permit);
        }
        let mut line = self.shared().lock();
        self.shared().close_lanes(&line);
        let is_next = line.level().is_none_or(|next| next < level);
        if self.shared().take_or_wait(self.partition, level, is_next) {
            return Admission::Permit(self.permit());
        }
        let mut displaced = None;
        if full(line.len()) {
            displaced = line.displace(level, caller);
            if displaced.is_none() {
                self.shared().unlock(line);
                return Admission::QueueFull;
            }
        }
        let waiter = Arc::new(Waiter::new(level, caller, clock::now()));
        line.push(Arc::clone(&waiter));
        let woken = displaced.and_then(|waiter| waiter.end(Err(reason)));
        self.shared().unlock(line);
        if let Some(waker) = woken {
            waker.wake();
        }
        Admission::Place(Place::new(self.clone(), waiter))
    }

    pub(crate) fn resize(&self, limit: usize) {
        self.set_limit(limit);
        self.wake();
    }

    /// Changes the limit and wakes nobody, so that it can be done under a lock; [`wake`](Self::wake) must follow.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.shared().set_limit(limit);
    }

    /// Wakes whom a higher limit has room for.
    pub(crate) fn wake(&self) {
        let shared = self.shared();
        shared.hand_on(shared.lock());
    }

    #[inline(always)]
    fn shared(&self) -> &'static Shared {
        self.owner.state()
    }

    /// For a slot that was taken.
    pub(crate) fn permit(&self) -> Permit {
        let (mine, lane) = mine(&self.shared().lanes);
        self.permit_in(mine, lane)
    }

    #[inline(always)]
    fn permit_in(&self, mine: &Lane, lane: usize) -> Permit {
        mine.loans.begin(lane);
        Permit {
            loan: self.owner.lend(),
            partition: self.partition,
        }
    }

    /// Takes a waiter that gave up out of the line, or hands on the slot that it was granted meanwhile.
    pub(super) fn abandon(&self, waiter: &Arc<Waiter>) {
        let mut line = self.shared().lock();
        let waited = line.remove(waiter);
        self.shared().unlock(line);
        // Out of the line, its turn is final.
        if !waited && waiter.holds_a_slot() {
            drop(self.permit());
        }
    }
}

/// A slot; dropping it gives the slot back.
///
/// It may outlive the call: keep it with a response whose body is still being read.
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    loan: Loan<(), Shared>,
    partition: usize,
}

impl Permit {
    /// Gives the slot back, as its drop does. In line, where that is a call: this is how most of them end.
    #[inline(always)]
    pub(crate) fn end(self) {
        let (loan, partition) = (self.loan, self.partition);
        mem::forget(self);
        give_back(loan, partition);
    }
}

impl Drop for Permit {
    #[inline(always)]
    fn drop(&mut self) {
        // By value, so that what holds a permit need not be kept in memory for its drop.
        dropped(self.loan, self.partition);
    }
}

#[inline(never)]
fn dropped(loan: Loan<(), Shared>, partition: usize) {
    give_back(loan, partition);
}

#[inline(always)]
fn give_back(loan: Loan<(), Shared>, partition: usize) {
    let shared = loan.state();
    let (mine, lane) = mine(&shared.lanes);
    if !mine.keep() {
        // Ended whatever becomes of it: who is woken is foreign code.
        let _under_way = UnderWay(shared);
        shared.give_back(partition);
    } else {
        mine.loans.end(lane);
    }
}

struct UnderWay(&'static Shared);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let (mine, lane) = mine(&self.0.lanes);
        mine.loans.end(lane);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}
