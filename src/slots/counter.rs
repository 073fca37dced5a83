use std::fmt;
use std::sync::PoisonError;

use super::line::{Line, Order};
use super::place::{Place, Waiter};
use super::shares::Shares;
use super::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::clock;
use crate::error::Reason;

/// A number of slots and the line in front of them. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    shared: Arc<Shared>,
    partition: usize,
}

/// Invariant: whoever waits is in `line`, and `word` says so. While it does, only the holder of the line's lock
/// changes `word`, so a newcomer cannot overtake; while it does not, calls come and go by compare-and-swap alone.
#[derive(Debug)]
struct Shared {
    /// The calls in flight of each partition, as `shares` lays them out, plus `WAITING` while somebody waits.
    word: AtomicU64,
    shares: Shares,
    /// Written under the lock. A call that races with a change may still see the old one: it came first.
    limit: AtomicUsize,
    line: Mutex<Line>,
}

/// What a caller that may wait is given.
pub(crate) enum Admission {
    Permit(Permit),
    Place(Place),
    QueueFull,
}

impl Slots {
    /// The highest level. Only those of it may fill all slots.
    pub(crate) const TOP: u8 = 3;

    pub(crate) fn new(limit: usize) -> Self {
        Self::shared_out(limit, Shares::default())
    }

    /// Slots of which each partition has a share. This handle takes from what they leave.
    pub(crate) fn shared_out(limit: usize, shares: Shares) -> Self {
        Self {
            shared: Arc::new(Shared {
                word: AtomicU64::new(0),
                shares,
                limit: AtomicUsize::new(limit),
                line: Mutex::new(Line::default()),
            }),
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
        self.lock().reorder(order);
    }

    pub(crate) fn limit(&self) -> usize {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// How many slots the partition has for itself.
    pub(crate) fn share(&self) -> usize {
        self.shared.shares.of(self.partition, self.limit())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.shared
            .shares
            .total(self.shared.word.load(Ordering::Relaxed))
    }

    /// How many of them are the partition's.
    pub(crate) fn in_flight_here(&self) -> usize {
        let word = self.shared.word.load(Ordering::Relaxed);
        self.shared.shares.count(word, self.partition)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn try_take(&self, level: u8) -> Option<Permit> {
        // Acquire and release on every change of `word`: what a call did happens before the one that gets its slot.
        self.shared
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                let overtakes = word & WAITING != 0;
                (!overtakes && self.has_room(word, level)).then_some(word + self.call())
            })
            .ok()
            .map(|_| self.permit())
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
        let mut line = self.lock();
        let is_next = line.level().is_none_or(|next| next < level);
        // One step decides: a slot that came free just now is taken, or its next holder sees that somebody waits.
        let takes = |word| is_next && self.has_room(word, level);
        let before = self
            .shared
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                Some(if takes(word) {
                    word + self.call()
                } else {
                    word | WAITING
                })
            })
            .unwrap_or_else(|word| word);
        if takes(before) {
            return Admission::Permit(self.permit());
        }
        let mut displaced = None;
        if full(line.len()) {
            displaced = line.displace(level, caller);
            if displaced.is_none() {
                self.unlock(line);
                return Admission::QueueFull;
            }
        }
        let waiter = Arc::new(Waiter::new(level, caller, clock::now()));
        line.push(Arc::clone(&waiter));
        let woken = displaced.and_then(|waiter| waiter.end(Err(reason)));
        self.unlock(line);
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
        let _line = self.lock();
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Wakes whom a higher limit has room for.
    pub(crate) fn wake(&self) {
        self.hand_on(self.lock());
    }

    pub(super) fn permit(&self) -> Permit {
        Permit {
            slots: self.clone(),
        }
    }

    /// Takes a waiter that gave up out of the line, or hands on the slot that it was granted meanwhile.
    pub(super) fn abandon(&self, waiter: &Arc<Waiter>) {
        let mut line = self.lock();
        let waited = line.remove(waiter);
        self.unlock(line);
        // Out of the line, its turn is final.
        if !waited && waiter.holds_a_slot() {
            self.give_back();
        }
    }

    fn call(&self) -> u64 {
        self.shared.shares.unit(self.partition)
    }

    fn has_room(&self, word: u64, level: u8) -> bool {
        // Each level leaves a tenth to those above it, so that they find a slot before anybody has to give way.
        let limit = self.limit();
        let above = usize::from(Self::TOP - level);
        let kept = limit.saturating_mul(above).div_ceil(10);
        let open = limit.saturating_sub(kept).max(1);
        self.shared
            .shares
            .has_room(word, self.partition, limit, open)
    }

    fn give_back(&self) {
        let nobody_waits =
            self.shared
                .word
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                    (word & WAITING == 0).then_some(word - self.call())
                });
        if nobody_waits.is_err() {
            let line = self.lock();
            self.shared.word.fetch_sub(self.call(), Ordering::AcqRel);
            self.hand_on(line);
        }
    }

    /// Gives free slots to those who wait.
    fn hand_on<'a>(&'a self, mut line: MutexGuard<'a, Line>) {
        loop {
            let word = self.shared.word.load(Ordering::Relaxed);
            if !line.level().is_some_and(|level| self.has_room(word, level)) {
                return;
            }
            let Some((waiter, result)) = line.pop(clock::now) else {
                return;
            };
            if result.is_ok() {
                self.shared.word.fetch_add(self.call(), Ordering::AcqRel);
            }
            let woken = waiter.end(result);
            self.unlock(line);
            if let Some(waker) = woken {
                waker.wake();
            }
            line = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.shared
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self, line: MutexGuard<'_, Line>) {
        if line.is_empty() {
            self.shared.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

/// A slot; dropping it gives the slot back.
///
/// It may outlive the call: keep it with a response whose body is still being read.
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    slots: Slots,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.slots.give_back();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

const WAITING: u64 = 1;
