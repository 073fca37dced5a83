use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tower::Service;

use super::bound::{Bound, rejected};
use super::{Fixed, Limits, TimeoutFuture, TimeoutLayer};
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};

/// The service of a [`TimeoutLayer`].
#[derive(Debug)]
pub struct Timeout<S, L = Fixed> {
    inner: S,
    layer: TimeoutLayer<L>,
    waiting: Waiting,
}

/// What the caller's wait for readiness came to. It is the caller's own, so a clone starts afresh.
#[derive(Debug, Default)]
enum Waiting {
    #[default]
    No,
    /// The inner service is not ready; the timer ends the wait. (The only allocation, and only where one waits.)
    Until {
        began: Instant,
        bound: Bound,
        timer: Pin<Box<Sleep>>,
    },
    /// The inner service became ready; the call has what the wait since then leaves of its limit.
    Ready(Instant),
    /// The wait took too long; the call that follows is refused.
    Over(Reason),
}

impl<S, L> Timeout<S, L> {
    pub(super) fn new(inner: S, layer: TimeoutLayer<L>) -> Self {
        Self {
            inner,
            layer,
            waiting: Waiting::No,
        }
    }

    /// What the wait for readiness leaves of a call's limit, or why it left nothing.
    #[cold]
    fn left(&mut self, now: Instant, limit: Duration) -> Result<Duration, Reason> {
        match mem::take(&mut self.waiting) {
            Waiting::Ready(began) if now < clock::after(began, self.layer.limit) => {
                match clock::after(began, limit).saturating_duration_since(now) {
                    Duration::ZERO => Err(Reason::TimedOut { after: limit }),
                    left => Ok(left),
                }
            }
            // A service that has been ready for longer than the limit was kept for later: the wait was another's.
            Waiting::No | Waiting::Until { .. } | Waiting::Ready(_) => Ok(limit),
            Waiting::Over(reason) => Err(reason),
        }
    }

    #[cold]
    fn refused<E: From<Rejected>>(&self, rejected: Rejected) -> E {
        self.layer.who.tells(rejected).into()
    }
}

impl<S: Clone, L: Clone> Clone for Timeout<S, L> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            waiting: Waiting::No,
        }
    }
}

impl<S, L, Req> Service<Req> for Timeout<S, L>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    L: Limits<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TimeoutFuture<S::Future>;

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let polled = self.inner.poll_ready(cx);
        if !self.layer.covers_readiness {
            return polled;
        }
        if let Poll::Ready(result) = &polled {
            self.waiting = match mem::take(&mut self.waiting) {
                Waiting::Until { began, .. } | Waiting::Ready(began) if result.is_ok() => {
                    Waiting::Ready(began)
                }
                _ => Waiting::No,
            };
            return polled;
        }
        if let Waiting::No | Waiting::Ready(_) = self.waiting {
            let began = clock::now();
            let (limit, outer) = (self.layer.limit, Deadline::current());
            let bound = Bound::new(began, limit, limit, outer);
            self.waiting = Waiting::Until {
                began,
                bound,
                timer: Box::pin(clock::until(bound.at)),
            };
        }
        if let Waiting::Until { bound, timer, .. } = &mut self.waiting {
            ready!(timer.as_mut().poll(cx));
            self.waiting = Waiting::Over(bound.reason());
        }
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let begun = clock::begin();
        self.call_at(begun.at, request)
    }
}

impl<S, L> Timeout<S, L> {
    /// Calls at `now`, when the call [began](clock::begin).
    #[inline(always)]
    pub(crate) fn call_at<Req>(&mut self, now: Instant, request: Req) -> TimeoutFuture<S::Future>
    where
        S: Service<Req>,
        S::Error: From<Rejected>,
        L: Limits<Req>,
    {
        let limit = self.layer.limits.limit(&request);
        let limit = limit.unwrap_or(self.layer.limit);
        let left = match self.waiting {
            Waiting::No => limit,
            _ => match self.left(now, limit) {
                Ok(left) => left,
                Err(reason) => {
                    return TimeoutFuture::over(Err(
                        self.refused(rejected(&self.layer.who, reason))
                    ));
                }
            },
        };
        let outer = Deadline::current();
        let bound = Bound::new(now, left, limit, outer);
        if bound.limit.is_none() && bound.at <= now {
            // Nobody waits for the answer any more: spare the peer the question.
            let rejected = rejected(&self.layer.who, bound.reason()).unsent();
            return TimeoutFuture::over(Err(self.refused(rejected)));
        }
        let _entered = Deadline::at(bound.at).enter_within(outer);
        let inner = self.inner.call(request);
        TimeoutFuture::running(bound, self.layer.who.clone(), inner)
    }
}
