//! A limit on how long a call may take. See the [guide](crate::docs::layers::timeout).
//!
//! The limit is the shorter of the layer's own and of the request's [`Deadline`], and it becomes the deadline of
//! everything inside. Past it the inner future is dropped and the call ends with [`Rejected`]: `TimedOut` where the
//! layer's limit was the shorter, `DeadlineExceeded` where the deadline was. A panic inside stays a panic.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::layers::timeout::TimeoutLayer;
//! use buttress::{BoxError, Rejected};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_millis(300)))
//!     .service_fn(|_: ()| async {
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!         Ok::<_, BoxError>("late")
//!     });
//! let error = service.oneshot(()).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().is_timeout());
//! # }
//! ```

use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::task::unconstrained;
use tower::{Layer, Service};

use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// Gives up a call after a limit.
#[derive(Clone, Debug)]
pub struct TimeoutLayer {
    limit: Duration,
    covers_readiness: bool,
    who: Who,
}

/// Whose calls these are, and who is told of those given up. Nobody and nothing costs a call nothing.
#[derive(Clone, Debug, Default)]
struct Who(Option<Arc<(Option<Arc<str>>, Observer)>>);

impl TimeoutLayer {
    /// Gives up a call `limit` after it began.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            covers_readiness: false,
            who: Who::default(),
        }
    }

    /// Says whose calls these are, in refusals and to the observer. By default they have no name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.who.change().0 = Some(name.into());
        self
    }

    /// Starts the clock of a call when its caller first asks whether the service is ready, so that waiting for
    /// readiness is bounded too: the call has what the wait left of the limit. Off by default, as tower's own
    /// `Timeout` has it.
    ///
    /// Past the limit `poll_ready` lets the caller through, and its call is refused. The wait is that of one service
    /// value: concurrent callers each need a clone.
    #[must_use]
    pub fn cover_readiness(mut self) -> Self {
        self.covers_readiness = true;
        self
    }

    /// Tells `observer` of each call given up.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.who.change().1 = observer.into();
        self
    }
}

impl Who {
    fn change(&mut self) -> &mut (Option<Arc<str>>, Observer) {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// A refusal with this name, told to this observer.
    fn refuses(&self, reason: Reason) -> Rejected {
        self.tells(Rejected::new("timeout", reason))
    }

    fn tells(&self, rejected: Rejected) -> Rejected {
        let Some(who) = &self.0 else {
            return rejected;
        };
        let (name, observer) = &**who;
        observer.refused(match name {
            Some(name) => rejected.named(Arc::clone(name)),
            None => rejected,
        })
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout {
            inner,
            layer: self.clone(),
            waiting: Waiting::No,
        }
    }
}

/// The service of a [`TimeoutLayer`].
#[derive(Debug)]
pub struct Timeout<S> {
    inner: S,
    layer: TimeoutLayer,
    waiting: Waiting,
}

/// What the caller's wait for readiness came to. It is the caller's own, so a clone starts afresh.
#[derive(Debug, Default)]
enum Waiting {
    #[default]
    No,
    /// The inner service is not ready; the timer ends the wait. (The only allocation, and only where one waits.)
    Until(Bound, Pin<Box<Sleep>>),
    /// The inner service became ready; the call has what is left.
    Ready(Bound),
    /// The wait took too long; the call that follows is refused.
    Over(Reason),
}

impl<S> Timeout<S> {
    /// What the wait for readiness leaves of the limit, or why it left nothing.
    #[cold]
    fn left(&mut self, now: Instant) -> Result<Duration, Reason> {
        match mem::take(&mut self.waiting) {
            Waiting::Ready(bound) if now < bound.at => Ok(bound.at - now),
            // A service that has been ready for longer than the limit was kept for later: the wait was another's.
            Waiting::No | Waiting::Until(..) | Waiting::Ready(_) => Ok(self.layer.limit),
            Waiting::Over(reason) => Err(reason),
        }
    }

    #[cold]
    fn refused<F>(&self, rejected: Rejected) -> TimeoutFuture<F> {
        let rejected = Some(self.layer.who.tells(rejected));
        TimeoutFuture {
            state: State::Refused { rejected },
        }
    }
}

impl<S: Clone> Clone for Timeout<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            waiting: Waiting::No,
        }
    }
}

impl<S, Req> Service<Req> for Timeout<S>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TimeoutFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let polled = self.inner.poll_ready(cx);
        if !self.layer.covers_readiness {
            return polled;
        }
        if let Poll::Ready(result) = &polled {
            self.waiting = match mem::take(&mut self.waiting) {
                Waiting::Until(bound, _) | Waiting::Ready(bound) if result.is_ok() => {
                    Waiting::Ready(bound)
                }
                _ => Waiting::No,
            };
            return polled;
        }
        if let Waiting::No | Waiting::Ready(_) = self.waiting {
            let bound = Bound::new(clock::now(), self.layer.limit, self.layer.limit);
            self.waiting = Waiting::Until(bound, Box::pin(clock::until(bound.at)));
        }
        if let Waiting::Until(bound, timer) = &mut self.waiting {
            ready!(timer.as_mut().poll(cx));
            self.waiting = Waiting::Over(bound.reason());
        }
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let begun = clock::begin();
        let now = begun.at;
        let limit = self.layer.limit;
        let left = match self.waiting {
            Waiting::No => limit,
            _ => match self.left(now) {
                Ok(left) => left,
                Err(reason) => return self.refused(Rejected::new("timeout", reason)),
            },
        };
        let bound = Bound::new(now, left, limit);
        if bound.limit.is_none() && bound.at <= now {
            // Nobody waits for the answer any more: spare the peer the question.
            return self.refused(Rejected::new("timeout", bound.reason()).unsent());
        }
        let _entered = Deadline::at(bound.at).enter();
        TimeoutFuture {
            state: State::Running {
                inner: self.inner.call(request),
                bound,
                timer: None,
                who: self.layer.who.clone(),
            },
        }
    }
}

/// When a call ends at the latest.
#[derive(Clone, Copy, Debug)]
struct Bound {
    at: Instant,
    /// The layer's own, unless the end is that of a deadline.
    limit: Option<Duration>,
}

impl Bound {
    /// The end of a call that has `left` of `limit`, if the deadline is not before it.
    #[inline]
    fn new(now: Instant, left: Duration, limit: Duration) -> Self {
        let own = Self {
            at: clock::after(now, left),
            limit: Some(limit),
        };
        match Deadline::current() {
            Some(deadline) if deadline.instant() <= own.at => Self {
                at: deadline.instant(),
                limit: None,
            },
            _ => own,
        }
    }

    fn reason(self) -> Reason {
        match self.limit {
            Some(after) => Reason::TimedOut { after },
            None => Reason::DeadlineExceeded,
        }
    }
}

pin_project! {
    /// The future of a [`Timeout`].
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        // The inner future is polled first: an answer that is there in time is never thrown away.
        Running {
            #[pin]
            inner: F,
            bound: Bound,
            // Registered only once the inner future is pending.
            #[pin]
            timer: Option<Sleep>,
            who: Who,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl<F, Res, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (inner, bound, mut timer, who) = match state.as_mut().project() {
            StateProj::Running {
                inner,
                bound,
                timer,
                who,
            } => (inner, bound, timer, who),
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                return Poll::Ready(Err(rejected.into()));
            }
        };
        // A deadline can be in force around this future and not have been around the call.
        if let Some(nearer) = Deadline::current().filter(|it| it.instant() < bound.at) {
            bound.at = nearer.instant();
            bound.limit = None;
            timer.set(None);
        }
        {
            let _entered = Deadline::at(bound.at).enter();
            match inner.poll(cx) {
                // What ends with an error once the time is over ended for that: a layer inside met the same deadline.
                Poll::Ready(Err(_)) if bound.at <= clock::now() => {
                    let rejected = who.refuses(bound.reason());
                    state.set(State::Refused { rejected: None });
                    return Poll::Ready(Err(rejected.into()));
                }
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => {}
            }
        }
        if timer.is_none() {
            timer.set(Some(clock::until(bound.at)));
        }
        if let Some(timer) = timer.as_pin_mut() {
            // Outside of tokio's budget for a task: an inner future that uses it up each time must end as well.
            ready!(pin!(unconstrained(timer)).poll(cx));
        }
        let rejected = who.refuses(bound.reason());
        // Drops the inner future now, not when the caller drops this one.
        state.set(State::Refused { rejected: None });
        Poll::Ready(Err(rejected.into()))
    }
}
