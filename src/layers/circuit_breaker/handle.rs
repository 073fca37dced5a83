use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::flow::{Flow, Given};
use super::permit::Claim;
use super::shared::{Inner, Shared};
use super::{CircuitBreakerLayer, Permit};
use crate::algo::breaker::{Breaker, Figures, IllegalChange, Refusal, Settings, State};
use crate::algo::tick::Moment;
use crate::classify::ErrorsFail;
use crate::clock;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;
use crate::rng::ThreadRng;
use crate::slab::{Owner, Slab};

/// A circuit breaker: the handle that reads and steers it. Clones share its state.
#[derive(Clone)]
pub struct CircuitBreaker {
    shared: Owner<Shared, Flow>,
}

impl CircuitBreaker {
    /// A closed breaker; the name is what refusals and events call it.
    pub fn new(name: impl Into<Arc<str>>, settings: Settings) -> Self {
        Self::of_family(name.into(), settings, None)
    }

    /// A breaker whose changes `family` is told as well.
    pub(super) fn of_family(
        name: Arc<str>,
        settings: Settings,
        family: Option<Arc<Notify>>,
    ) -> Self {
        let now = clock::now();
        let breaker = Breaker::new(settings, now);
        let shared = SLAB.own(Flow::new, |flow| {
            flow.start(&breaker, now);
            Shared {
                name,
                flow,
                inner: Mutex::new(Inner {
                    breaker,
                    given: Given::new(),
                    observer: Observer::default(),
                    telling: false,
                }),
                changed: Notify::new(),
                family,
            }
        });
        Self { shared }
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

    /// Takes the step to `state`, for who has it as a value: a page where breakers are steered. To open and to half-open
    /// as [`open`](Self::open) and [`half_open`](Self::half_open) do.
    ///
    /// # Errors
    ///
    /// If the step makes no sense: a breaker that lets every call through has nothing to probe, and one that only counts
    /// is to be neither open nor half-open. Nothing changes then.
    pub fn set(&self, state: State) -> Result<(), IllegalChange> {
        self.steer(|breaker, now| breaker.set(state, now, &mut ThreadRng))
    }

    /// Asks for one call, for work that is no service. Dropping the permit counts as a cancelled call.
    ///
    /// # Errors
    ///
    /// If the breaker is open or forced open, or half-open with all its probes under way.
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_at(clock::now())
    }

    #[inline(always)]
    pub(super) fn try_acquire_at(&self, now: Instant) -> Result<Permit, Rejected> {
        self.acquire(now).map_err(|refusal| self.rejected(refusal))
    }

    /// Waits until a call would be admitted. It is not reserved: another caller may come first.
    pub async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changes());
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

    /// Of what a call may have become possible by, or impossible.
    pub(super) fn changes(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    /// Waits until a call may have become possible, or impossible.
    pub(super) async fn changed(self) {
        self.shared.changed.notified().await;
    }

    /// The epoch of a call that begins now, if every call is let through. For those who keep this handle as long as the call
    /// lasts, so that it need not be counted; they end it by [`succeeded`](Self::succeeded) or a [permit](Self::permit).
    #[inline(always)]
    pub(crate) fn flowing(&self) -> Option<u64> {
        self.shared.flow.epoch()
    }

    /// Counts a success of a call that began at `began`, unless it is up to the breaker: then it needs a permit. And when it
    /// ended.
    #[inline(always)]
    pub(crate) fn succeeded(&self, epoch: u64, began: Instant, pended: bool) -> (bool, Moment) {
        let flow = self.shared.flow;
        if pended || flow.times_calls() {
            let now = clock::end();
            let counted = !flow.is_slow(began, now.at) && flow.count(epoch, now).is_some();
            (counted, now)
        } else {
            let now = clock::end_at_once(began);
            (flow.count(epoch, now).is_some(), now)
        }
    }

    /// For a call that was let through in `epoch`.
    #[inline(always)]
    pub(crate) fn permit(&self, epoch: u64, began: Instant) -> Permit {
        self.shared.flow.begin();
        Permit(Claim {
            epoch,
            started: began,
            loan: self.shared.lend(),
        })
    }

    /// As `try_acquire`, but tells nobody of a refusal.
    #[inline(always)]
    pub(super) fn acquire(&self, now: Instant) -> Result<Permit, Refusal> {
        let epoch = match self.shared.flow.epoch() {
            Some(epoch) => epoch,
            None => {
                let acquire = |breaker: &mut Breaker| breaker.acquire(now, &mut ThreadRng);
                self.shared.step(now, acquire)?.epoch()
            }
        };
        Ok(self.permit(epoch, now))
    }

    /// Its state as of its last step, and whether it refuses calls for a while yet.
    pub(super) fn standing(&self, now: Instant) -> (State, bool) {
        self.shared.lock().breaker.standing(now)
    }

    /// Whether a call or another handle has it.
    pub(super) fn is_held(&self) -> bool {
        self.shared.is_in_use()
    }

    /// Whether it refuses calls now; one that lets every call through says so without its lock.
    #[inline(always)]
    pub(super) fn refuses(&self) -> bool {
        self.shared.flow.epoch().is_none() && self.refusal().is_some()
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
    fn steer<T>(&self, step: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let result = self.with(step);
        self.shared.tell_changed();
        result
    }

    pub(super) fn with<T>(&self, step: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let now = clock::now();
        self.shared.step(now, |breaker| step(breaker, now))
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

static SLAB: Slab<Shared, Flow> = Slab::new();
