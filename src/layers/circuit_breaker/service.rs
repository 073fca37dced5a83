use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::Service;

use super::{CircuitBreaker, CircuitBreakerFuture, unready};
use crate::classify::Classify;
use crate::clock;
use crate::error::Rejected;

/// The service of a [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
///
/// It is ready when the service inside is, and reserves nothing. While the breaker refuses it is ready without asking, so
/// that a call is refused at once, whatever the service inside waits for or fails with.
pub struct CircuitBreakerService<S, C> {
    pub(crate) inner: S,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) classify: C,
    readiness: Readiness,
}

/// The caller's own, so a clone starts afresh.
#[derive(Default)]
enum Readiness {
    #[default]
    Inner,
    /// The inner service is not ready. Wakes the caller when the breaker changes, for it may refuse then.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    /// The inner service was not asked or is not ready, and must not be called, but the breaker refuses.
    Refusing,
}

impl<S, C> CircuitBreakerService<S, C> {
    #[inline(always)]
    pub(super) fn new(inner: S, breaker: CircuitBreaker, classify: C) -> Self {
        Self {
            inner,
            breaker,
            classify,
            readiness: Readiness::Inner,
        }
    }

    /// Ready as soon as the breaker refuses.
    fn poll_refusing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Listened to before the breaker is read, so that no change falls between.
            let changed = match &mut self.readiness {
                Readiness::Waiting(changed) => changed.as_mut().poll(cx).is_ready(),
                _ => true,
            };
            if self.breaker.refusal().is_some() {
                self.readiness = Readiness::Refusing;
                return Poll::Ready(());
            }
            if !changed {
                return Poll::Pending;
            }
            self.readiness = Readiness::Waiting(Box::pin(self.breaker.clone().changed()));
        }
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CircuitBreakerFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.breaker.refuses() {
            self.readiness = Readiness::Refusing;
            return Poll::Ready(Ok(()));
        }
        let polled = unready::poll(&self.breaker, || self.inner.poll_ready(cx));
        if polled.is_pending() {
            return self.poll_refusing(cx).map(Ok);
        }
        self.readiness = Readiness::Inner;
        if let Poll::Ready(Err(error)) = &polled {
            unready::count(&self.breaker, self.classify.classify(Err(error)));
        }
        polled
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        if let Readiness::Refusing = std::mem::take(&mut self.readiness) {
            return CircuitBreakerFuture::refused(Err(self.breaker.refuse().into()));
        }
        let begun = clock::begin();
        match self.breaker.try_acquire_at(begun.at) {
            Ok(permit) => {
                let classify = self.classify.clone();
                CircuitBreakerFuture::running(permit, classify, self.inner.call(request))
            }
            Err(rejected) => CircuitBreakerFuture::refused(Err(rejected.into())),
        }
    }
}

impl<S: Clone, C: Clone> Clone for CircuitBreakerService<S, C> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.breaker.clone(),
            self.classify.clone(),
        )
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CircuitBreakerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService")
            .field("breaker", &self.breaker)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
