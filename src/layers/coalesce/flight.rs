use std::collections::BTreeMap;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::deadline::Deadline;

/// A call that several callers wait for, each in a seat.
///
/// The first of them polls it; when that one leaves, the next is woken and does. The lock is not held meanwhile.
pub(super) struct Flight<F: Future>(Mutex<State<F>>);

struct State<F: Future> {
    call: Call<F>,
    /// Who waits, in the order in which they came, and what wakes them.
    seats: BTreeMap<u64, Option<Waker>>,
    /// The number of the next seat.
    next: u64,
}

enum Call<F: Future> {
    // Boxed, for it goes on where it is when the one who polls it leaves.
    Running(Pin<Box<F>>),
    /// The first seat is polling it.
    Polled,
    Ended(F::Output),
    /// It panicked, or nobody waits any more.
    Over,
}

/// What one of those who waited gets of the output.
pub enum Part<'a, T> {
    /// All of it, for the others have theirs.
    Last(T),
    /// A part or a copy, for others want theirs.
    Another(&'a mut T),
}

impl<F: Future> Flight<F> {
    /// A new call, and the first seat.
    pub(super) fn begin(call: F) -> Seat<F> {
        let flight = Arc::new(Self(Mutex::new(State {
            call: Call::Running(Box::pin(call)),
            seats: BTreeMap::from([(0, None)]),
            next: 1,
        })));
        Seat { flight, number: 0 }
    }

    /// Another seat, unless the call has ended.
    pub(super) fn join(self: &Arc<Self>) -> Option<Seat<F>> {
        let mut state = self.lock();
        if !state.is_under_way() {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.seats.insert(number, None);
        Some(Seat {
            flight: Arc::clone(self),
            number,
        })
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.lock().is_under_way()
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> State<F> {
    fn is_under_way(&self) -> bool {
        matches!(self.call, Call::Running(_) | Call::Polled)
    }

    fn is_first(&self, number: u64) -> bool {
        self.seats
            .first_key_value()
            .is_some_and(|(first, _)| *first == number)
    }
}

/// The place of one who waits for a [`Flight`]. Dropped, it is left, and what it had to do falls to the next.
pub struct Seat<F: Future> {
    flight: Arc<Flight<F>>,
    number: u64,
}

impl<F: Future> Seat<F> {
    pub(super) fn flight(&self) -> &Arc<Flight<F>> {
        &self.flight
    }

    /// Whether the call was somebody else's before.
    pub(super) fn is_shared(&self) -> bool {
        self.number > 0
    }

    /// Unlike that of all others of its flight, and above those that came before.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What `part` makes of the output once the call has ended; `None` if it panicked.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        part: impl FnOnce(Part<'_, F::Output>) -> T,
    ) -> Poll<Option<T>> {
        let mut state = self.flight.lock();
        if state.is_first(self.number) {
            match mem::replace(&mut state.call, Call::Polled) {
                Call::Running(call) => {
                    drop(state);
                    self.drive(call, cx);
                    state = self.flight.lock();
                }
                other => state.call = other,
            }
        }
        if state.is_under_way() {
            let Some(seat) = state.seats.get_mut(&self.number) else {
                return Poll::Pending;
            };
            if !seat.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
                let old = seat.replace(cx.waker().clone());
                // Dropping a waker may run anything; not under the lock.
                drop(state);
                drop(old);
            }
            return Poll::Pending;
        }
        let waker = state.seats.remove(&self.number);
        let State { call, seats, .. } = &mut *state;
        let answer = match call {
            Call::Ended(output) if !seats.is_empty() => {
                let answer = part(Part::Another(output));
                drop(state);
                Some(answer)
            }
            call => {
                let ended = mem::replace(call, Call::Over);
                drop(state);
                match ended {
                    Call::Ended(output) => Some(part(Part::Last(output))),
                    _ => None,
                }
            }
        };
        drop(waker);
        Poll::Ready(answer)
    }

    fn drive(&self, mut call: Pin<Box<F>>, cx: &mut Context<'_>) {
        let mut driving = Driving {
            flight: &self.flight,
            becomes: Call::Over,
        };
        // The call is everybody's: the deadline of the one who polls it must not end it for the others.
        let _lifted = Deadline::lift();
        match call.as_mut().poll(cx) {
            Poll::Pending => driving.becomes = Call::Running(call),
            Poll::Ready(output) => {
                // What the call held is given back before anybody is told of its end.
                drop(call);
                driving.becomes = Call::Ended(output);
            }
        }
    }
}

impl<F: Future> Drop for Seat<F> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        let was_first = state.is_first(self.number);
        let left = state.seats.remove(&self.number);
        let (mut call, mut heir) = (Call::Over, None);
        if state.seats.is_empty() {
            mem::swap(&mut state.call, &mut call);
        } else if was_first && state.is_under_way() {
            let first = state.seats.first_entry();
            heir = first.and_then(|mut first| first.get_mut().take());
        }
        // Calls and wakers are foreign code: it runs outside the lock.
        drop(state);
        drop((call, left));
        if let Some(waker) = heir {
            waker.wake();
        }
    }
}

/// Puts the call back after it was polled, or what came of it, also when that panics.
struct Driving<'a, F: Future> {
    flight: &'a Flight<F>,
    becomes: Call<F>,
}

impl<F: Future> Drop for Driving<'_, F> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.call = mem::replace(&mut self.becomes, Call::Over);
        if state.is_under_way() {
            return;
        }
        // Without the first: that is the one who polled it.
        let seats = state.seats.values_mut().skip(1);
        let waiting: Vec<_> = seats.filter_map(Option::take).collect();
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}
