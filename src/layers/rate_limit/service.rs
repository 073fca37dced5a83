use std::fmt;
use std::hash::Hash;
use std::task::{Context, Poll};

use tower::Service;

use super::{Ask, RateLimitFuture, RateLimiter};
use crate::admitted::Admitted;
use crate::error::Rejected;

/// The service of a [`RateLimitLayer`](super::RateLimitLayer).
pub struct RateLimitService<S, K, A> {
    inner: S,
    limiter: RateLimiter<K>,
    ask: A,
}

impl<S, K, A> RateLimitService<S, K, A> {
    pub(super) fn new(inner: S, limiter: RateLimiter<K>, ask: A) -> Self {
        Self {
            inner,
            limiter,
            ask,
        }
    }
}

impl<S, K, A, Req> Service<Req> for RateLimitService<S, K, A>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Ask<Req, Key = K>,
    K: Hash + Eq,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RateLimitFuture<S, Req, S::Future, S::Error>;

    /// Always ready: what the limit is for a call is known from its request alone. Each call asks for the inner
    /// service's readiness once it has its permits, so that one that waits holds nothing further in.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (key, cost) = (self.ask.key(&request), self.ask.cost(&request));
        let entry = self.limiter.admit(key, cost);
        RateLimitFuture::new(Admitted::new(entry, &mut self.inner, request))
    }
}

impl<S: Clone, K, A: Clone> Clone for RateLimitService<S, K, A> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.limiter.clone(), self.ask.clone())
    }
}

impl<S: fmt::Debug, K, A> fmt::Debug for RateLimitService<S, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService")
            .field("limiter", &self.limiter)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
