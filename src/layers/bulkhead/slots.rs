use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::Order;
use super::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering};

/// The slots of a bulkhead and the queue in front of them. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<Shared>);

/// Invariant: whoever waits is in `queue`, and `word` says so. While it does, only the holder of the queue's lock
/// changes `word`, so a newcomer cannot overtake; while it does not, calls come and go by compare-and-swap alone.
#[derive(Debug)]
struct Shared {
    /// `CALL` for each call in flight, plus `WAITING` while somebody waits.
    word: AtomicUsize,
    /// Written under the lock. A call that races with a change may still see the old one: it came first.
    limit: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
}

/// What a caller that may wait is given.
pub(super) enum Admission {
    Permit(Permit),
    Place(Place),
    QueueFull,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            word: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            queue: Mutex::new(VecDeque::new()),
        }))
    }

    pub(super) fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.0.word.load(Ordering::Relaxed) / CALL
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn try_take(&self) -> Option<Permit> {
        // Acquire and release on every change of `word`: what a call did happens before the one that gets its slot.
        self.0
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                self.has_room(word).then_some(word + CALL)
            })
            .ok()
            .map(|_| self.permit())
    }

    /// A slot if there is one, else a place in the queue if fewer than `length` wait or the oldest gives way.
    pub(super) fn take_or_queue(&self, length: usize, order: Order) -> Admission {
        if let Some(permit) = self.try_take() {
            return Admission::Permit(permit);
        }
        let mut queue = self.lock();
        // One step decides: a slot that came free just now is taken, or its next holder sees that somebody waits.
        let before = self
            .0
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                Some(if self.has_room(word) {
                    word + CALL
                } else {
                    word | WAITING
                })
            })
            .unwrap_or_else(|word| word);
        if self.has_room(before) {
            return Admission::Permit(self.permit());
        }
        let mut displaced = None;
        if queue.len() >= length {
            if order != Order::NewestFirstDropOldest {
                return Admission::QueueFull;
            }
            let oldest = queue.pop_back();
            displaced = oldest.map(|oldest| mem::replace(&mut *oldest.lock(), Turn::Displaced));
        }
        let waiter = Arc::new(Waiter(Mutex::new(Turn::Waiting(None))));
        match order {
            Order::OldestFirst => queue.push_back(Arc::clone(&waiter)),
            _ => queue.push_front(Arc::clone(&waiter)),
        }
        drop(queue);
        // A waker is foreign code: it runs outside the locks.
        if let Some(Turn::Waiting(Some(waker))) = displaced {
            waker.wake();
        }
        Admission::Place(Place {
            slots: self.clone(),
            waiter,
        })
    }

    pub(super) fn resize(&self, limit: usize) {
        let queue = self.lock();
        self.0.limit.store(limit, Ordering::Relaxed);
        drop(queue);
        while self.hand_on(self.lock()) {}
    }

    fn has_room(&self, word: usize) -> bool {
        word & WAITING == 0 && word / CALL < self.limit()
    }

    fn permit(&self) -> Permit {
        Permit {
            slots: self.clone(),
        }
    }

    fn give_back(&self) {
        let nobody_waits = self
            .0
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & WAITING == 0).then_some(word - CALL)
            });
        if nobody_waits.is_err() {
            let queue = self.lock();
            self.0.word.fetch_sub(CALL, Ordering::AcqRel);
            self.hand_on(queue);
        }
    }

    /// Gives a free slot to the first who waits, and says whether there were both.
    fn hand_on(&self, mut queue: MutexGuard<'_, VecDeque<Arc<Waiter>>>) -> bool {
        if self.in_flight() >= self.limit() {
            return false;
        }
        let Some(waiter) = queue.pop_front() else {
            return false;
        };
        self.0.word.fetch_add(CALL, Ordering::AcqRel);
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
                let granted = matches!(*waiter.lock(), Turn::Granted);
                drop(queue);
                if granted {
                    self.give_back();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self, queue: MutexGuard<'_, VecDeque<Arc<Waiter>>>) {
        if queue.is_empty() {
            self.0.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

/// A slot of a bulkhead; dropping it gives the slot back.
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

/// A place in the queue. Dropped, it is left; a slot granted but not taken goes to the next.
#[derive(Debug)]
pub(super) struct Place {
    slots: Slots,
    waiter: Arc<Waiter>,
}

impl Place {
    /// The slot, or `None` if another came in this place.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Permit>> {
        let mut turn = self.waiter.lock();
        match &*turn {
            Turn::Granted => {
                *turn = Turn::Taken;
                Poll::Ready(Some(self.slots.permit()))
            }
            Turn::Displaced => Poll::Ready(None),
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
    Displaced,
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const WAITING: usize = 1;
const CALL: usize = 2;
