use std::sync::PoisonError;

use super::line::Line;
use super::shares::Shares;
use super::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lanes};
use crate::algo::lanes::Lanes;
use crate::clock;
use crate::slab::{Lend, Loans};

/// The count of the slots, and those who wait.
///
/// Invariants: whoever waits is in `line`, and `word` says so. While it does, only the holder of the line's lock
/// changes `word`, so a newcomer cannot overtake; while it does not, calls come and go by compare-and-swap alone.
///
/// Lanes keep slots only while `word` says that they are open, which only the holder of the lock changes, and never
/// while somebody waits. So what `word` says of closed lanes is exact, and nobody is refused a slot that a lane
/// keeps: who finds none closes the lanes and looks again.
#[derive(Debug)]
pub(super) struct Shared {
    /// The calls in flight of each partition, as `shares` lays them out, and the slots that lanes keep with those of no
    /// partition, plus `WAITING` while somebody waits, plus `OPEN` while lanes may keep slots.
    word: AtomicU64,
    shares: Shares,
    /// Written under the lock. A call that races with a change may still see the old one: it came first.
    limit: AtomicUsize,
    line: Mutex<Line>,
    pub(super) lanes: Lanes<Lane>,
}

/// What a thread counts for itself.
#[derive(Debug)]
pub(super) struct Lane {
    /// The slots that calls gave back here, for the next call, plus `ROOM` for each that may be kept.
    kept: AtomicU64,
    pub(super) loans: Loans,
}

impl Lend for Shared {
    fn loans(&self) -> impl Iterator<Item = &Loans> {
        self.lanes.iter().map(|lane| &lane.loans)
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            shares: Shares::default(),
            limit: AtomicUsize::new(0),
            line: Mutex::new(Line::default()),
            lanes: Lanes::new(lanes(), Lane::new),
        }
    }

    /// Slots of which none is taken, whoever had them before.
    pub(super) fn begin(&self, limit: usize, shares: &[f64]) {
        *self.lock() = Line::default();
        for lane in self.lanes.iter() {
            lane.kept.store(0, Ordering::Relaxed);
        }
        self.word.store(0, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.shares.set(shares);
    }

    #[inline]
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes it and wakes nobody.
    pub(super) fn set_limit(&self, limit: usize) {
        let line = self.lock();
        self.close_lanes(&line);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many slots the partition has for itself.
    pub(super) fn share_of(&self, partition: usize) -> usize {
        self.shares.of(partition, self.limit())
    }

    pub(super) fn in_flight(&self) -> usize {
        let kept = |lane: &Lane| (lane.kept.load(Ordering::Relaxed) % ROOM) as usize;
        let taken = self.taken(self.word.load(Ordering::Relaxed));
        taken.saturating_sub(self.lanes.iter().map(kept).sum())
    }

    pub(super) fn in_flight_of(&self, partition: usize) -> usize {
        let word = self.word.load(Ordering::Relaxed);
        self.shares.count(word, partition)
    }

    /// How many slots are in flight or kept.
    fn taken(&self, word: u64) -> usize {
        self.shares.total(word)
    }

    fn has_room(&self, word: u64, partition: usize, level: u8) -> bool {
        // Each level leaves a tenth to those above it, so that they find a slot before anybody has to give way.
        let limit = self.limit();
        let above = usize::from(TOP - level);
        let kept = limit.saturating_mul(above).div_ceil(10);
        let open = limit.saturating_sub(kept).max(1);
        self.shares.has_room(word, partition, limit, open)
    }

    // Acquire and release on every change of `word` and of a lane: what a call did happens before the one that gets its
    // slot.

    pub(super) fn take(&self, partition: usize, level: u8) -> bool {
        let call = self.shares.unit(partition);
        loop {
            let taken = self
                .word
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                    let overtakes = word & WAITING != 0;
                    (!overtakes && self.has_room(word, partition, level)).then(|| word + call)
                });
            match taken {
                Ok(_) => return true,
                Err(word) if word & OPEN == 0 => return false,
                Err(_) => self.close_lanes(&self.lock()),
            }
        }
    }

    /// Takes a slot if there is one and `is_next` allows it, else says that somebody waits. The lock is held, and the
    /// lanes are closed.
    pub(super) fn take_or_wait(&self, partition: usize, level: u8, is_next: bool) -> bool {
        let takes = |word| is_next && self.has_room(word, partition, level);
        let call = self.shares.unit(partition);
        // One step decides: a slot that came free just now is taken, or its next holder sees that somebody waits.
        let next = |word| {
            Some(if takes(word) {
                word + call
            } else {
                word | WAITING
            })
        };
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        takes(before.unwrap_or_else(|word| word))
    }

    /// A slot that no lane keeps.
    pub(super) fn give_back(&self, partition: usize) {
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
            lanes.for_each(|lane| lane.kept.store(kept, Ordering::Release));
        }
    }

    /// Takes back what the lanes keep.
    pub(super) fn close_lanes(&self, _line: &MutexGuard<'_, Line>) {
        if self.word.load(Ordering::Relaxed) & OPEN == 0 {
            return;
        }
        let take_back = |lane: &Lane| lane.kept.swap(0, Ordering::AcqRel) % ROOM;
        let kept: u64 = self.lanes.iter().map(take_back).sum();
        let call = self.shares.unit(Shares::REST);
        self.word.fetch_sub(kept * call + OPEN, Ordering::AcqRel);
    }

    /// Gives free slots to those who wait.
    pub(super) fn hand_on<'a>(&'a self, mut line: MutexGuard<'a, Line>) {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unlock(&self, line: MutexGuard<'_, Line>) {
        if line.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            kept: AtomicU64::new(0),
            loans: Loans::default(),
        }
    }

    /// Takes a slot that it keeps.
    #[inline(always)]
    pub(super) fn take(&self) -> bool {
        let next = |kept: u64| (kept % ROOM > 0).then(|| kept - 1);
        self.kept
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .is_ok()
    }

    /// Whether it keeps a slot that comes back.
    #[inline(always)]
    pub(super) fn keep(&self) -> bool {
        let next = |kept: u64| (kept % ROOM < kept / ROOM).then(|| kept + 1);
        self.kept
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .is_ok()
    }
}

/// The highest level. Only those of it may fill all slots.
pub(super) const TOP: u8 = 3;

const WAITING: u64 = 1;
const OPEN: u64 = 2;
const ROOM: u64 = 1 << 32;
