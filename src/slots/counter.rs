use std::fmt;
use std::sync::PoisonError;

use super::line::{Line, Order};
use super::place::{Place, Waiter};
use super::shares::Shares;
use super::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lane, lanes};
use crate::algo::lanes::{Lanes, Share, Spread};
use crate::clock;
use crate::error::Reason;

/// A number of slots and the line in front of them. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    shared: Spread<Shared>,
    partition: usize,
}

/// Invariants: whoever waits is in `line`, and `word` says so. While it does, only the holder of the line's lock
/// changes `word`, so a newcomer cannot overtake; while it does not, calls come and go by compare-and-swap alone.
///
/// Lanes keep slots only while `word` says that they are open, which only the holder of the lock changes, and never
/// while somebody waits. So what `word` says of closed lanes is exact, and nobody is refused a slot that a lane
/// keeps: who finds none closes the lanes and looks again.
#[derive(Debug)]
struct Shared {
    /// The calls in flight of each partition, as `shares` lays them out, and the slots that lanes keep with those of no
    /// partition, plus `WAITING` while somebody waits, plus `OPEN` while lanes may keep slots.
    word: AtomicU64,
    shares: Shares,
    /// Written under the lock. A call that races with a change may still see the old one: it came first.
    limit: AtomicUsize,
    line: Mutex<Line>,
    /// The slots that calls gave back to a lane, for the next call there, plus `ROOM` for each that it may keep.
    lanes: Lanes<AtomicU64>,
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
            shared: Spread::new(Shared {
                word: AtomicU64::new(0),
                shares,
                limit: AtomicUsize::new(limit),
                line: Mutex::new(Line::default()),
                lanes: Lanes::new(lanes(), || AtomicU64::new(0)),
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
        self.shared.lock().reorder(order);
    }

    pub(crate) fn limit(&self) -> usize {
        self.shared.limit()
    }

    /// How many slots the partition has for itself.
    pub(crate) fn share(&self) -> usize {
        self.shared.shares.of(self.partition, self.limit())
    }

    pub(crate) fn in_flight(&self) -> usize {
        let kept = |lane: &AtomicU64| (lane.load(Ordering::Relaxed) % ROOM) as usize;
        let taken = self.shared.taken(self.shared.word.load(Ordering::Relaxed));
        taken.saturating_sub(self.shared.lanes.iter().map(kept).sum())
    }

    /// How many of them are the partition's.
    pub(crate) fn in_flight_here(&self) -> usize {
        let word = self.shared.word.load(Ordering::Relaxed);
        self.shared.shares.count(word, self.partition)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().len()
    }

    #[inline(always)]
    pub(crate) fn try_take(&self, level: u8) -> Option<Permit> {
        let taken = level == Self::TOP && self.shared.take_kept() || self.take(level);
        taken.then(|| self.permit())
    }

    fn take(&self, level: u8) -> bool {
        loop {
            let taken =
                self.shared
                    .word
                    .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                        let overtakes = word & WAITING != 0;
                        (!overtakes && self.has_room(word, level)).then(|| word + self.call())
                    });
            match taken {
                Ok(_) => return true,
                Err(word) if word & OPEN == 0 => return false,
                Err(_) => self.shared.close_lanes(&self.shared.lock()),
            }
        }
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
        let mut line = self.shared.lock();
        self.shared.close_lanes(&line);
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
                self.shared.unlock(line);
                return Admission::QueueFull;
            }
        }
        let waiter = Arc::new(Waiter::new(level, caller, clock::now()));
        line.push(Arc::clone(&waiter));
        let woken = displaced.and_then(|waiter| waiter.end(Err(reason)));
        self.shared.unlock(line);
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
        let line = self.shared.lock();
        self.shared.close_lanes(&line);
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Wakes whom a higher limit has room for.
    pub(crate) fn wake(&self) {
        let shared = &*self.shared;
        shared.hand_on(shared.lock());
    }

    #[inline(always)]
    pub(super) fn permit(&self) -> Permit {
        Permit {
            shared: self.shared.share(),
            partition: self.partition,
        }
    }

    /// Takes a waiter that gave up out of the line, or hands on the slot that it was granted meanwhile.
    pub(super) fn abandon(&self, waiter: &Arc<Waiter>) {
        let mut line = self.shared.lock();
        let waited = line.remove(waiter);
        self.shared.unlock(line);
        // Out of the line, its turn is final.
        if !waited && waiter.holds_a_slot() {
            self.shared.give_back(self.partition);
        }
    }
}

impl Slots {
    #[inline]
    fn call(&self) -> u64 {
        self.shared.shares.unit(self.partition)
    }

    #[inline]
    fn has_room(&self, word: u64, level: u8) -> bool {
        self.shared.has_room(word, self.partition, level)
    }
}

impl Shared {
    #[inline]
    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many slots are in flight or kept.
    fn taken(&self, word: u64) -> usize {
        self.shares.total(word)
    }

    fn has_room(&self, word: u64, partition: usize, level: u8) -> bool {
        // Each level leaves a tenth to those above it, so that they find a slot before anybody has to give way.
        let limit = self.limit();
        let above = usize::from(Slots::TOP - level);
        let kept = limit.saturating_mul(above).div_ceil(10);
        let open = limit.saturating_sub(kept).max(1);
        self.shares.has_room(word, partition, limit, open)
    }

    // Acquire and release on every change of `word` and of a lane: what a call did happens before the one that gets its
    // slot.

    /// A slot that this thread's lane keeps.
    #[inline(always)]
    fn take_kept(&self) -> bool {
        let next = |kept: u64| (kept % ROOM > 0).then(|| kept - 1);
        let mine = self.lanes.at(lane());
        mine.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .is_ok()
    }

    #[inline(always)]
    fn give_back(&self, partition: usize) {
        let next = |kept: u64| (kept % ROOM < kept / ROOM).then(|| kept + 1);
        let mine = self.lanes.at(lane());
        if mine
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .is_err()
        {
            self.give_back_to_all(partition);
        }
    }

    fn give_back_to_all(&self, partition: usize) {
        let call = self.shares.unit(partition);
        let nobody_waits = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & WAITING == 0).then(|| word - call)
            });
        match nobody_waits {
            Ok(word) if word & OPEN == 0 && self.taken(word) <= self.limit() / 4 => {
                self.open_lanes();
            }
            Ok(_) => {}
            Err(_) => {
                let line = self.lock();
                self.word.fetch_sub(call, Ordering::AcqRel);
                self.hand_on(line);
            }
        }
    }

    /// Lets lanes keep slots, half of all at most. Where there are partitions they keep none: a share is one step.
    fn open_lanes(&self) {
        let room = (self.limit() / 2 / lanes()) as u64;
        if room == 0 || !self.shares.is_empty() {
            return;
        }
        let _line = self.lock();
        // In `word` first: it must never deny a slot that a lane keeps.
        let opened = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & (WAITING | OPEN) == 0).then_some(word | OPEN)
            });
        if opened.is_ok() {
            let kept = room.min(ROOM - 1) * ROOM;
            let lanes = self.lanes.iter();
            lanes.for_each(|lane| lane.store(kept, Ordering::Release));
        }
    }

    /// Takes back what the lanes keep.
    fn close_lanes(&self, _line: &MutexGuard<'_, Line>) {
        if self.word.load(Ordering::Relaxed) & OPEN == 0 {
            return;
        }
        let take_back = |lane: &AtomicU64| lane.swap(0, Ordering::AcqRel) % ROOM;
        let kept: u64 = self.lanes.iter().map(take_back).sum();
        let call = self.shares.unit(Shares::REST);
        self.word.fetch_sub(kept * call + OPEN, Ordering::AcqRel);
    }

    /// Gives free slots to those who wait.
    fn hand_on<'a>(&'a self, mut line: MutexGuard<'a, Line>) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let has_room = |level| self.has_room(word, Shares::REST, level);
            if !line.level().is_some_and(has_room) {
                return;
            }
            let Some((waiter, result)) = line.pop(clock::now) else {
                return;
            };
            if result.is_ok() {
                let call = self.shares.unit(Shares::REST);
                self.word.fetch_add(call, Ordering::AcqRel);
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
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self, line: MutexGuard<'_, Line>) {
        if line.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

/// A slot; dropping it gives the slot back.
///
/// It may outlive the call: keep it with a response whose body is still being read.
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    shared: Share<Shared>,
    partition: usize,
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.shared.give_back(self.partition);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

const WAITING: u64 = 1;
const OPEN: u64 = 2;
const ROOM: u64 = 1 << 32;
