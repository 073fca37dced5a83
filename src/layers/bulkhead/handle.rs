use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::service::BulkheadLayer;
use super::slots::{Admission, Permit, Place, Slots};
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// A limit on how many calls are under way at once. Clones share its slots and its queue; the bounds of the queue and
/// the observer are those of the clone that they were set on.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    slots: Slots,
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Arc<str>,
    queue: Option<Queue>,
    observer: Observer,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    length: usize,
    max_wait: Duration,
}

impl Bulkhead {
    /// A bulkhead of `limit` slots that refuses at once when they are taken.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing could ever pass.
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, limit: usize) -> Self {
        assert!(limit > 0, "a bulkhead of no slots lets nothing pass");
        Self {
            slots: Slots::new(limit),
            settings: Arc::new(Settings {
                name: name.into(),
                queue: None,
                observer: Observer::default(),
            }),
        }
    }

    /// Lets up to `length` calls wait for a slot, first come, first served, each for at most `max_wait` and never
    /// past its request's [`Deadline`]. Off by default: under overload a queue adds latency and no throughput.
    ///
    /// # Panics
    ///
    /// If `length` or `max_wait` is 0: that is no queue.
    #[must_use]
    #[track_caller]
    pub fn queue(mut self, length: usize, max_wait: Duration) -> Self {
        assert!(length > 0, "a queue of length 0 is no queue");
        assert!(!max_wait.is_zero(), "a queue of no wait is no queue");
        Arc::make_mut(&mut self.settings).queue = Some(Queue { length, max_wait });
        self
    }

    /// Tells `observer` of each call refused.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer.into();
        self
    }

    /// A layer that puts calls behind this bulkhead. All its layers share the slots.
    pub fn layer(&self) -> BulkheadLayer {
        BulkheadLayer::new(self.clone())
    }

    /// Asks for a slot without tower, and waits for it where there is a queue.
    ///
    /// The slot, or the place in the queue, is taken now and not when the future is first polled.
    ///
    /// # Errors
    ///
    /// [`Rejected`] by `"bulkhead"`: `Full` without a queue; with one `QueueFull`, `WaitedTooLong` or
    /// `DeadlineExceeded`.
    pub fn acquire(&self) -> Acquire {
        match self.admit() {
            Ok(Admitted::Now(permit)) => Acquire::over(Ok(permit)),
            Ok(Admitted::Later(acquire)) => acquire,
            Err(rejected) => Acquire::over(Err(rejected)),
        }
    }

    /// Changes the number of slots, and returns at once. More slots wake who waits; fewer take effect as calls end.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn resize(&self, limit: usize) {
        assert!(limit > 0, "a bulkhead of no slots lets nothing pass");
        self.slots.resize(limit);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// How many calls may be under way at once.
    pub fn limit(&self) -> usize {
        self.slots.limit()
    }

    /// How many calls are under way: above the limit for a while after it was lowered.
    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// How many calls wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// A slot, or the wait for one.
    #[inline]
    pub(super) fn admit(&self) -> Result<Admitted, Rejected> {
        match self.slots.try_take() {
            Some(permit) => Ok(Admitted::Now(permit)),
            None => self.admit_later(),
        }
    }

    /// Where no slot was free a moment ago.
    fn admit_later(&self) -> Result<Admitted, Rejected> {
        let Some(queue) = self.settings.queue else {
            return Err(self.refused(Reason::Full {
                limit: self.limit(),
            }));
        };
        match self.slots.take_or_queue(queue.length) {
            Admission::Permit(permit) => Ok(Admitted::Now(permit)),
            Admission::Place(place) => Ok(Admitted::Later(Acquire {
                state: State::waiting(place, queue.max_wait, self.clone()),
            })),
            Admission::QueueFull => Err(self.refused(Reason::QueueFull {
                limit: queue.length,
            })),
        }
    }

    fn refused(&self, reason: Reason) -> Rejected {
        let name = Arc::clone(&self.settings.name);
        let rejected = Rejected::new("bulkhead", reason).named(name).unsent();
        self.settings.observer.refused(rejected)
    }
}

/// What a call that is not refused gets.
pub(super) enum Admitted {
    Now(Permit),
    Later(Acquire),
}

pin_project! {
    /// The wait for a [`Permit`]; see [`Bulkhead::acquire`]. Dropped, it leaves the queue.
    #[derive(Debug)]
    #[must_use = "a slot or a place in the queue is held until this is awaited or dropped"]
    pub struct Acquire {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        // The place is asked first: a slot that is there in time is never refused.
        Waiting {
            place: Place,
            end: Reason,
            #[pin]
            timer: Sleep,
            bulkhead: Bulkhead,
        },
        Over { result: Option<Result<Permit, Rejected>> },
    }
}

impl State {
    fn waiting(place: Place, max_wait: Duration, bulkhead: Bulkhead) -> Self {
        let own = clock::after(clock::now(), max_wait);
        let (at, end) = match Deadline::current() {
            Some(deadline) if deadline.instant() < own => {
                (deadline.instant(), Reason::DeadlineExceeded)
            }
            _ => (own, Reason::WaitedTooLong { after: max_wait }),
        };
        Self::Waiting {
            place,
            end,
            timer: clock::until(at),
            bulkhead,
        }
    }
}

impl Acquire {
    fn over(result: Result<Permit, Rejected>) -> Self {
        let result = Some(result);
        Self {
            state: State::Over { result },
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = match state.as_mut().project() {
            StateProj::Waiting {
                place,
                end,
                mut timer,
                bulkhead,
            } => match place.poll(cx) {
                Poll::Ready(permit) => Ok(permit),
                Poll::Pending => {
                    // A deadline can be in force around this future and not have been around the call.
                    let at = timer.deadline().into_std();
                    if let Some(nearer) = Deadline::current().filter(|it| it.instant() < at) {
                        timer.as_mut().reset(nearer.instant().into());
                        *end = Reason::DeadlineExceeded;
                    }
                    ready!(timer.poll(cx));
                    Err((bulkhead.clone(), *end))
                }
            },
            StateProj::Over { result } => {
                return Poll::Ready(result.take().expect("polled after completion"));
            }
        };
        // The place is left before anybody is told.
        state.set(State::Over { result: None });
        Poll::Ready(result.map_err(|(bulkhead, end)| bulkhead.refused(end)))
    }
}
