use std::fmt;
use std::task::{Context, Poll};

use tower::Service;

use super::{Ask, Limiter, RateLimitFuture};
use crate::admitted::{Admitted, Entry};
use crate::error::Rejected;

/// The service of a [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone)]
pub struct RateLimitService<S, L, A> {
    inner: S,
    limiter: L,
    ask: A,
}

impl<S, L, A> RateLimitService<S, L, A> {
    pub(super) fn new(inner: S, limiter: L, ask: A) -> Self {
        Self {
            inner,
            limiter,
            ask,
        }
    }
}

impl<S, L, A, Req> Service<Req> for RateLimitService<S, L, A>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    L: Limiter,
    A: Ask<Req, Key = L::Key>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RateLimitFuture<L::Acquire, S, Req, S::Future, S::Error>;

    /// Always ready: what the limit is for a call is known from its request alone. Each call asks for the inner
    /// service's readiness once it has its permits, so that one that waits holds nothing further in.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (key, cost) = (self.ask.key(&request), self.ask.cost(&request));
        let wait = self.limiter.enter(key, cost);
        let entry = wait.map(|wait| wait.map_or(Entry::Now(()), Entry::Later));
        RateLimitFuture::new(Admitted::new(entry, &mut self.inner, request))
    }
}

impl<S: fmt::Debug, L: fmt::Debug, A> fmt::Debug for RateLimitService<S, L, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService")
            .field("limiter", &self.limiter)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
