use std::collections::VecDeque;
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
    /// Not here while the first seat polls it.
    place: Option<Place<F>>,
    phase: Phase<F::Output>,
    /// Who waits, in the order in which they came, and what wakes them.
    seats: VecDeque<(u64, Option<Waker>)>,
    /// The number of the next seat.
    next: u64,
}

/// Where the call is, if there is one. Boxed, for it goes on where it is when the one who polls it leaves.
type Place<F> = Pin<Box<Option<F>>>;

enum Phase<T> {
    UnderWay,
    Ended(T),
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
    /// Room for a call.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            place: Some(Box::pin(None)),
            phase: Phase::Over,
            seats: VecDeque::with_capacity(FEW),
            next: 0,
        })))
    }

    /// A new call, and its first seat. Nobody has a seat in the one before.
    pub(super) fn begin(self: Arc<Self>, call: F) -> Seat<F> {
        let mut state = self.lock();
        state.phase = Phase::UnderWay;
        let place = state.place.get_or_insert_with(|| Box::pin(None));
        place.set(Some(call));
        state.seats.shrink_to(MANY);
        let number = state.sit();
        drop(state);
        Seat {
            flight: self,
            number,
            joined: false,
        }
    }

    /// Another seat, unless the call has ended.
    pub(super) fn join(self: &Arc<Self>) -> Option<Seat<F>> {
        let mut state = self.lock();
        let number = state.is_under_way().then(|| state.sit())?;
        drop(state);
        Some(Seat {
            flight: Arc::clone(self),
            number,
            joined: true,
        })
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.lock().is_under_way()
    }

    /// Leaves nothing where the call was.
    fn empty(&self, mut place: Place<F>) {
        place.set(None);
        self.lock().place = Some(place);
    }

    /// Wakes those who have sat down since.
    fn wake_after(&self, mut number: u64) {
        loop {
            let mut state = self.lock();
            let next = state.seats.partition_point(|(seat, _)| *seat <= number);
            let Some((seat, waker)) = state.seats.get_mut(next) else {
                return;
            };
            number = *seat;
            let waker = waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> State<F> {
    fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::UnderWay)
    }

    fn is_first(&self, number: u64) -> bool {
        self.seats
            .front()
            .is_some_and(|(first, _)| *first == number)
    }

    fn sit(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.seats.push_back((number, None));
        number
    }

    fn waker_of(&mut self, number: u64) -> Option<&mut Option<Waker>> {
        let index = self.index_of(number)?;
        self.seats.get_mut(index).map(|(_, waker)| waker)
    }

    /// What would have woken the one who leaves.
    fn leave(&mut self, number: u64) -> Option<Waker> {
        let index = self.index_of(number)?;
        self.seats.remove(index)?.1
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        self.seats
            .binary_search_by_key(&number, |(seat, _)| *seat)
            .ok()
    }
}

/// The place of one who waits for a [`Flight`]. Dropped, it is left, and what it had to do falls to the next.
pub struct Seat<F: Future> {
    flight: Arc<Flight<F>>,
    number: u64,
    joined: bool,
}

impl<F: Future> Seat<F> {
    pub(super) fn flight(&self) -> &Arc<Flight<F>> {
        &self.flight
    }

    /// Whether the call was somebody else's before.
    pub(super) fn is_shared(&self) -> bool {
        self.joined
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
        if state.is_under_way() && state.is_first(self.number) {
            if let Some(place) = state.place.take() {
                drop(state);
                self.drive(place, cx);
                state = self.flight.lock();
            }
        }
        if state.is_under_way() {
            let Some(seat) = state.waker_of(self.number) else {
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
        let waker = state.leave(self.number);
        let State { phase, seats, .. } = &mut *state;
        let answer = match phase {
            Phase::Ended(output) if !seats.is_empty() => {
                let answer = part(Part::Another(output));
                drop(state);
                Some(answer)
            }
            phase => {
                let ended = mem::replace(phase, Phase::Over);
                drop(state);
                match ended {
                    Phase::Ended(output) => Some(part(Part::Last(output))),
                    _ => None,
                }
            }
        };
        drop(waker);
        Poll::Ready(answer)
    }

    fn drive(&self, place: Place<F>, cx: &mut Context<'_>) {
        let mut driving = Driving {
            seat: self,
            place: Some(place),
            becomes: Phase::Over,
        };
        let place = driving.place.as_mut().expect("put there");
        // The call is everybody's: the deadline of the one who polls it must not end it for the others.
        let _lifted = Deadline::lift();
        let call = place.as_mut().as_pin_mut().expect("under way");
        match call.poll(cx) {
            Poll::Pending => driving.becomes = Phase::UnderWay,
            Poll::Ready(output) => {
                // What the call held is given back before anybody is told of its end.
                place.set(None);
                driving.becomes = Phase::Ended(output);
            }
        }
    }
}

impl<F: Future> Drop for Seat<F> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        let was_first = state.is_first(self.number);
        let left = state.leave(self.number);
        let (mut phase, mut place, mut heir) = (Phase::Over, None, None);
        if state.seats.is_empty() {
            if state.is_under_way() {
                place = state.place.take();
            }
            mem::swap(&mut state.phase, &mut phase);
        } else if was_first && state.is_under_way() {
            heir = state.seats.front_mut().and_then(|(_, waker)| waker.take());
        }
        // Calls and wakers are foreign code: it runs outside the lock.
        drop(state);
        drop((phase, left));
        if let Some(place) = place {
            self.flight.empty(place);
        }
        if let Some(waker) = heir {
            waker.wake();
        }
    }
}

/// Puts the call back after it was polled, and says what came of it, also when that panics.
struct Driving<'a, F: Future> {
    seat: &'a Seat<F>,
    place: Option<Place<F>>,
    becomes: Phase<F::Output>,
}

impl<F: Future> Drop for Driving<'_, F> {
    fn drop(&mut self) {
        let becomes = mem::replace(&mut self.becomes, Phase::Over);
        if let (Some(place), Phase::Over) = (&mut self.place, &becomes) {
            place.set(None);
        }
        let Seat { flight, number, .. } = self.seat;
        let mut state = flight.lock();
        state.place = self.place.take();
        state.phase = becomes;
        let is_under_way = state.is_under_way();
        drop(state);
        if !is_under_way {
            flight.wake_after(*number);
        }
    }
}

/// What most calls that are shared need.
const FEW: usize = 4;
/// For so many there is room in the next call if there was in the last.
const MANY: usize = 64;
