use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, lane, lanes};
use crate::algo::lanes::{Lanes, Share, Spread};

/// The slots of a bulkhead and the queue in front of them. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Slots(Spread<Shared>);

/// Invariants: whoever waits is in `queue`, and `word` says so. While it does, only the holder of the queue's lock
/// changes `word`, so a newcomer cannot overtake; while it does not, calls come and go by compare-and-swap alone.
///
/// Lanes keep slots only while `word` says that they are open, which only the holder of the lock changes, and never
/// while somebody waits. So what `word` says of a closed bulkhead is exact, and nobody is refused a slot that a lane
/// keeps: who finds none closes the lanes and looks again.
#[derive(Debug)]
struct Shared {
    /// `CALL` for each call in flight and each slot that a lane keeps, plus `WAITING` while somebody waits, plus `OPEN`
    /// while lanes may keep slots.
    word: AtomicUsize,
    /// Written under the lock. A call that races with a change may still see the old one: it came first.
    limit: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// The slots that calls gave back to a lane, for the next call there, plus `ROOM` for each that it may keep.
    lanes: Lanes<AtomicUsize>,
}

/// What a caller that may wait is given.
pub(super) enum Admission {
    Permit(Permit),
    Place(Place),
    QueueFull,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self(Spread::new(Shared {
            word: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            queue: Mutex::new(VecDeque::new()),
            lanes: Lanes::new(lanes(), || AtomicUsize::new(0)),
        }))
    }

    #[cfg_attr(test, allow(dead_code))] // The model does not ask.
    pub(super) fn limit(&self) -> usize {
        self.0.limit()
    }

    pub(super) fn in_flight(&self) -> usize {
        let kept = |lane: &AtomicUsize| lane.load(Ordering::Relaxed) % ROOM;
        let taken = self.0.word.load(Ordering::Relaxed) / CALL;
        taken.saturating_sub(self.0.lanes.iter().map(kept).sum())
    }

    pub(super) fn waiting(&self) -> usize {
        self.0.lock().len()
    }

    #[inline]
    pub(super) fn try_take(&self) -> Option<Permit> {
        self.0.try_take().then(|| self.permit())
    }

    /// Where none was free a moment ago: a slot if there is one now, else a place in the queue if fewer than `length` wait.
    pub(super) fn take_or_queue(&self, length: usize) -> Admission {
        let mut queue = self.0.lock();
        self.0.close_lanes(&queue);
        // One step decides: a slot that came free just now is taken, or its next holder sees that somebody waits.
        let before = self
            .0
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                Some(if self.0.has_room(word) {
                    word + CALL
                } else {
                    word | WAITING
                })
            })
            .unwrap_or_else(|word| word);
        if self.0.has_room(before) {
            return Admission::Permit(self.permit());
        }
        if queue.len() >= length {
            return Admission::QueueFull;
        }
        let waiter = Arc::new(Waiter(Mutex::new(Turn::Waiting(None))));
        queue.push_back(Arc::clone(&waiter));
        Admission::Place(Place {
            slots: self.0.share(),
            waiter,
        })
    }

    pub(super) fn resize(&self, limit: usize) {
        let queue = self.0.lock();
        self.0.close_lanes(&queue);
        self.0.limit.store(limit, Ordering::Relaxed);
        drop(queue);
        while self.0.hand_on(self.0.lock()) {}
    }

    #[inline]
    fn permit(&self) -> Permit {
        Permit {
            slots: self.0.share(),
        }
    }
}

impl Shared {
    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn has_room(&self, word: usize) -> bool {
        word & WAITING == 0 && word / CALL < self.limit()
    }

    // Acquire and release on every change of `word` and of a lane: what a call did happens before the one that gets its
    // slot.

    #[inline]
    fn try_take(&self) -> bool {
        let kept = |kept: usize| (kept % ROOM > 0).then(|| kept - 1);
        let mine = self.lanes.at(lane());
        mine.fetch_update(Ordering::AcqRel, Ordering::Relaxed, kept)
            .is_ok()
            || self.try_take_shared()
    }

    fn try_take_shared(&self) -> bool {
        loop {
            let taken = self
                .word
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                    self.has_room(word).then_some(word + CALL)
                });
            match taken {
                Ok(_) => return true,
                Err(word) if word & OPEN == 0 => return false,
                Err(_) => self.close_lanes(&self.lock()),
            }
        }
    }

    #[inline]
    fn give_back(&self) {
        let room = |kept: usize| (kept % ROOM < kept / ROOM).then(|| kept + 1);
        let mine = self.lanes.at(lane());
        if mine
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, room)
            .is_err()
        {
            self.give_back_shared();
        }
    }

    fn give_back_shared(&self) {
        let nobody_waits = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & WAITING == 0).then_some(word - CALL)
            });
        match nobody_waits {
            Ok(word) if word & OPEN == 0 && word / CALL <= self.limit() / 4 => self.open_lanes(),
            Ok(_) => {}
            Err(_) => {
                let queue = self.lock();
                self.word.fetch_sub(CALL, Ordering::AcqRel);
                self.hand_on(queue);
            }
        }
    }

    /// Lets lanes keep slots, half of all at most.
    fn open_lanes(&self) {
        let room = (self.limit() / 2 / lanes()).min(ROOM - 1);
        if room == 0 {
            return;
        }
        let _queue = self.lock();
        // In `word` first: it must never deny a slot that a lane keeps.
        let opened = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & (WAITING | OPEN) == 0).then_some(word | OPEN)
            });
        if opened.is_ok() {
            self.lanes
                .iter()
                .for_each(|lane| lane.store(room * ROOM, Ordering::Release));
        }
    }

    /// Takes back what the lanes keep.
    fn close_lanes(&self, _queue: &MutexGuard<'_, VecDeque<Arc<Waiter>>>) {
        if self.word.load(Ordering::Relaxed) & OPEN == 0 {
            return;
        }
        let take_back = |lane: &AtomicUsize| lane.swap(0, Ordering::AcqRel) % ROOM;
        let kept: usize = self.lanes.iter().map(take_back).sum();
        self.word.fetch_sub(kept * CALL + OPEN, Ordering::AcqRel);
    }

    /// Gives a free slot to the first who waits, and says whether there were both.
    fn hand_on(&self, mut queue: MutexGuard<'_, VecDeque<Arc<Waiter>>>) -> bool {
        if self.word.load(Ordering::Relaxed) / CALL >= self.limit() {
            return false;
        }
        let Some(waiter) = queue.pop_front() else {
            return false;
        };
        self.word.fetch_add(CALL, Ordering::AcqRel);
        let turn = mem::replace(&mut *waiter.lock(), Turn::Granted);
        self.unlock(queue);
        // A waker is foreign code: it runs outside the locks.
        if let Turn::Waiting(Some(waker)) = turn {
            waker.wake();
        }
        true
    }

    /// Takes a waiter that gave up out of the queue, or hands on the slot that it was granted meanwhile.
    fn abandon(&self, waiter: &Arc<Waiter>) {
        let mut queue = self.lock();
        match queue.iter().position(|queued| Arc::ptr_eq(queued, waiter)) {
            Some(place) => {
                queue.remove(place);
                self.unlock(queue);
            }
            None => {
                drop(queue);
                self.give_back();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self, queue: MutexGuard<'_, VecDeque<Arc<Waiter>>>) {
        if queue.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

/// A slot of a bulkhead; dropping it gives the slot back.
///
/// It may outlive the call: keep it with a response whose body is still being read.
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    slots: Share<Shared>,
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.slots.give_back();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// A place in the queue. Dropped, it is left; a slot granted but not taken goes to the next.
#[derive(Debug)]
pub(super) struct Place {
    slots: Share<Shared>,
    waiter: Arc<Waiter>,
}

impl Place {
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Permit> {
        let mut turn = self.waiter.lock();
        match &*turn {
            Turn::Granted => {
                *turn = Turn::Taken;
                Poll::Ready(Permit {
                    slots: self.slots.clone(),
                })
            }
            Turn::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            Turn::Taken => Poll::Pending,
            Turn::Waiting(_) => {
                let old = mem::replace(&mut *turn, Turn::Waiting(Some(cx.waker().clone())));
                // Dropping a waker may run anything; not under the lock.
                drop(turn);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only this place moves its turn to `Taken`, so the answer cannot change.
        let taken = matches!(*self.waiter.lock(), Turn::Taken);
        if !taken {
            self.slots.abandon(&self.waiter);
        }
    }
}

/// One who waits. Its lock is taken inside the queue's, never around it.
#[derive(Debug)]
struct Waiter(Mutex<Turn>);

#[derive(Debug)]
enum Turn {
    Waiting(Option<Waker>),
    Granted,
    Taken,
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const WAITING: usize = 1;
const OPEN: usize = 2;
const CALL: usize = 4;
const ROOM: usize = 1 << (usize::BITS / 2);
