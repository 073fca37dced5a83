use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::CircuitBreakerLayer;
use super::flow::{Flow, Given};
use crate::algo::breaker::{
    Breaker, Call, Change, Figures, Notice, Refusal, Settings, State, Ticket,
};
use crate::algo::lanes::{Share, Spread};
use crate::classify::{ErrorsFail, Outcome};
use crate::clock;
use crate::error::{Reason, Rejected};
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;

/// A circuit breaker: the handle that reads and steers it. Clones share its state.
#[derive(Clone)]
pub struct CircuitBreaker {
    shared: Spread<Shared>,
}

struct Shared {
    name: Arc<str>,
    flow: Flow,
    inner: Mutex<Inner>,
    /// Told whenever a call may have become possible, or impossible.
    changed: Notify,
}

struct Inner {
    breaker: Breaker,
    given: Given,
    observer: Observer,
    /// Whether a thread is telling the observer; it takes on those that come up meanwhile.
    telling: bool,
}

impl CircuitBreaker {
    /// A closed breaker; the name is what refusals and events call it.
    pub fn new(name: impl Into<Arc<str>>, settings: Settings) -> Self {
        let now = clock::now();
        let breaker = Breaker::new(settings, now);
        Self {
            shared: Spread::new(Shared {
                name: name.into(),
                flow: Flow::new(&breaker, now),
                inner: Mutex::new(Inner {
                    breaker,
                    given: Given::new(),
                    observer: Observer::default(),
                    telling: false,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Tells `observer` of each change of state and of what opened it, one after the other in their order, and of each
    /// refusal. All clones share it.
    #[must_use]
    pub fn observe(self, observer: impl Into<Observer>) -> Self {
        let observer = observer.into();
        let replaced = mem::replace(&mut self.shared.lock().observer, observer);
        // A listener is foreign code in its `drop` too: it runs outside the lock.
        drop(replaced);
        self
    }

    /// A layer that guards services with this breaker. An error counts as a failure; see
    /// [`classify`](CircuitBreakerLayer::classify).
    pub fn layer(&self) -> CircuitBreakerLayer<ErrorsFail> {
        CircuitBreakerLayer::new(self.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its state. An open breaker stays open until a call comes after its wait.
    pub fn state(&self) -> State {
        self.figures().state
    }

    /// What it counted, and how long it stays open.
    pub fn figures(&self) -> Figures {
        self.with(|breaker, now| breaker.figures(now, &mut ThreadRng))
    }

    /// Goes by other settings from now on, in the state it is in and with what it counted; a window of another shape
    /// starts empty.
    pub fn reconfigure(&self, settings: Settings) {
        self.steer(|breaker, now| breaker.reconfigure(settings, now));
    }

    /// Closes it and forgets what it counted. The results of calls under way are dropped; so they are whenever the
    /// state changes.
    pub fn close(&self) {
        self.steer(|breaker, _| breaker.close());
    }

    /// Opens it as if it had opened by itself: for as long as the settings have it.
    pub fn open(&self) {
        self.steer(|breaker, now| breaker.open(now, &mut ThreadRng));
    }

    /// Opens it for `wait`, after which it probes as if it had opened by itself.
    pub fn open_for(&self, wait: Duration) {
        self.steer(|breaker, now| breaker.open_for(wait, now));
    }

    /// Lets the next calls probe.
    pub fn half_open(&self) {
        self.steer(|breaker, now| breaker.half_open(now));
    }

    /// Refuses every call until [`close`](Self::close) or another state is set.
    pub fn force_open(&self) {
        self.steer(|breaker, _| breaker.force_open());
    }

    /// Lets every call through, uncounted, until [`close`](Self::close) or another state is set.
    pub fn disable(&self) {
        self.steer(|breaker, _| breaker.disable());
    }

    /// Counts but never opens, until [`close`](Self::close) or another state is set: a dry run.
    pub fn metrics_only(&self) {
        self.steer(|breaker, _| breaker.metrics_only());
    }

    /// Asks for one call, for work that is no service. Dropping the permit counts as a cancelled call.
    ///
    /// # Errors
    ///
    /// If the breaker is open or forced open, or half-open with all its probes under way.
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_at(clock::now())
    }

    #[inline]
    pub(super) fn try_acquire_at(&self, now: Instant) -> Result<Permit, Rejected> {
        self.acquire(now).map_err(|refusal| self.rejected(refusal))
    }

    /// Waits until a call would be admitted. It is not reserved: another caller may come first.
    pub async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let Some(refusal) = self.refusal() else {
                return;
            };
            match refusal.retry_after {
                Some(wait) => tokio::select! {
                    () = changed => {}
                    () = clock::until(clock::after(clock::now(), wait)) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Waits until a call may have become possible, or impossible.
    pub(super) async fn changed(self) {
        self.shared.changed.notified().await;
    }

    /// As `try_acquire`, but tells nobody of a refusal.
    #[inline]
    pub(super) fn acquire(&self, now: Instant) -> Result<Permit, Refusal> {
        let ticket = match self.shared.flow.epoch() {
            Some(epoch) => Ticket::of(epoch),
            None => self
                .shared
                .step(now, |breaker| breaker.acquire(now, &mut ThreadRng))?,
        };
        Ok(Permit {
            ticket: Some(ticket),
            started: now,
            shared: self.shared.share(),
        })
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.with(|breaker, now| breaker.refusal(now, &mut ThreadRng))
    }

    /// A refusal for a call that cannot be made, though by now the breaker may admit one.
    pub(super) fn refuse(&self) -> Rejected {
        let refusal = self.with(|breaker, now| breaker.refuse(now, &mut ThreadRng));
        self.rejected(refusal.unwrap_or(Refusal {
            state: State::Open,
            retry_after: Some(Duration::ZERO),
        }))
    }

    #[cold]
    fn rejected(&self, refusal: Refusal) -> Rejected {
        let reason = match refusal.state {
            State::HalfOpen => Reason::HalfOpen,
            State::ForcedOpen => Reason::ForcedOpen,
            _ => Reason::Open,
        };
        let rejected = Rejected::new("circuit breaker", reason).named(self.shared.name.clone());
        let observer = self.shared.lock().observer.clone();
        observer.refused(match refusal.retry_after {
            Some(wait) => rejected.retry_after(wait),
            None => rejected,
        })
    }

    /// A step by hand. It may make a call possible without a change of state: an open breaker may be told to wait less.
    fn steer(&self, step: impl FnOnce(&mut Breaker, Instant)) {
        self.with(step);
        self.shared.changed.notify_waiters();
    }

    fn with<T>(&self, step: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let now = clock::now();
        self.shared.step(now, |breaker| step(breaker, now))
    }
}

impl Shared {
    /// One step of the breaker; what came of it is told once the lock is released.
    fn step<T>(&self, now: Instant, step: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = self.lock();
        let Inner { breaker, given, .. } = &mut *inner;
        if let Some(epoch) = breaker.flowing() {
            let more = given.more(&self.flow, epoch);
            breaker.record_successes(more, now, &mut ThreadRng);
        }
        let refused = breaker.refusal(now, &mut ThreadRng).is_some();
        let result = step(breaker);
        // The last probe taken, or one given back, makes a difference without a change of state.
        let differs = refused != breaker.refusal(now, &mut ThreadRng).is_some();
        let told = breaker.has_notice();
        self.flow.set(breaker, now);
        drop(inner);
        if told || differs {
            self.changed.notify_waiters();
        }
        if told {
            self.tell();
        }
        result
    }

    /// Tells the observer of the notices in their order, one thread at a time.
    fn tell(&self) {
        loop {
            let mut inner = self.lock();
            if inner.telling {
                return;
            }
            let Some(notice) = inner.breaker.next_notice() else {
                return;
            };
            inner.telling = true;
            let observer = inner.observer.clone();
            drop(inner);
            let _telling = Telling(self);
            let breaker = &*self.name;
            observer.emit(&match notice {
                Notice::Tripped(condition) => Event::Tripped { breaker, condition },
                Notice::Changed(Change { from, to }) => Event::StateChanged { breaker, from, to },
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

/// Held while the observer is told, so that one that panics does not silence the breaker.
struct Telling<'a>(&'a Shared);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.lock().telling = false;
    }
}

/// The right to make one call. Dropped without a result it counts as the settings say of a
/// [cancelled](Settings::cancelled) call, and as a failure if the thread is panicking.
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    /// Taken once it is accounted for.
    ticket: Option<Ticket>,
    started: Instant,
    shared: Share<Shared>,
}

impl Permit {
    /// Counts how the call went; it began when the permit was given.
    pub fn record(self, outcome: Outcome) {
        self.record_at(clock::now(), outcome);
    }

    #[inline]
    pub(super) fn record_at(mut self, now: Instant, outcome: Outcome) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let counted = outcome == Outcome::Success
            && self.shared.flow.succeed(ticket.epoch(), self.started, now);
        if !counted {
            self.finish(ticket, now, Some(outcome));
        }
    }

    /// Gives it back unused: nothing is counted.
    pub fn release(self) {
        self.record(Outcome::Ignored);
    }

    fn dropped(&self, ticket: Ticket) {
        let panicked = std::thread::panicking().then_some(Outcome::Failure);
        self.finish(ticket, clock::now(), panicked);
    }

    /// No outcome: the call was cancelled.
    fn finish(&self, ticket: Ticket, now: Instant, outcome: Option<Outcome>) {
        let elapsed = now.saturating_duration_since(self.started);
        self.shared.step(now, |breaker| {
            let call = match outcome {
                Some(Outcome::Success) => Call::succeeded(elapsed),
                Some(Outcome::Failure) => Call::failed(elapsed),
                Some(Outcome::Overload(retry_after)) => Call {
                    retry_after,
                    ..Call::failed(elapsed)
                },
                Some(Outcome::Ignored) => return breaker.release(ticket, now, &mut ThreadRng),
                None => return breaker.cancel(ticket, elapsed, now, &mut ThreadRng),
            };
            breaker.record(ticket, call, now, &mut ThreadRng);
        });
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.dropped(ticket);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("breaker", &self.shared.name)
            .finish_non_exhaustive()
    }
}
