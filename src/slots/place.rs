use std::mem;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::counter::{Permit, Slots};
use super::sync::{Arc, Mutex, MutexGuard};
use crate::error::Reason;

/// A place in the line. Dropped, it is left; a slot granted but not taken goes to the next.
#[derive(Debug)]
pub(crate) struct Place {
    slots: Slots,
    waiter: Arc<Waiter>,
}

impl Place {
    pub(super) fn new(slots: Slots, waiter: Arc<Waiter>) -> Self {
        Self { slots, waiter }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Permit, Reason>> {
        let mut turn = self.waiter.lock();
        match &*turn {
            Turn::Granted => {
                *turn = Turn::Over;
                Poll::Ready(Ok(self.slots.permit()))
            }
            Turn::Refused(reason) => {
                let reason = *reason;
                *turn = Turn::Over;
                Poll::Ready(Err(reason))
            }
            Turn::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            Turn::Over => Poll::Pending,
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
        // Only this place moves its turn to `Over`, so the answer cannot change.
        let over = matches!(*self.waiter.lock(), Turn::Over);
        if !over {
            self.slots.abandon(&self.waiter);
        }
    }
}

/// One who waits. Its lock is taken inside the line's, never around it.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Who is above others stands in front of them.
    pub(super) level: u8,
    /// Whose calls take turns with those of others.
    pub(super) caller: Option<u64>,
    pub(super) since: Instant,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
enum Turn {
    Waiting(Option<Waker>),
    Granted,
    Refused(Reason),
    Over,
}

impl Waiter {
    pub(super) fn new(level: u8, caller: Option<u64>, since: Instant) -> Self {
        Self {
            level,
            caller,
            since,
            turn: Mutex::new(Turn::Waiting(None)),
        }
    }

    /// Ends the wait, with a slot or without. The waker is foreign code: it is woken outside the locks.
    pub(super) fn end(&self, result: Result<(), Reason>) -> Option<Waker> {
        let turn = result.map_or_else(Turn::Refused, |()| Turn::Granted);
        match mem::replace(&mut *self.lock(), turn) {
            Turn::Waiting(waker) => waker,
            _ => None,
        }
    }

    pub(super) fn holds_a_slot(&self) -> bool {
        matches!(*self.lock(), Turn::Granted)
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
