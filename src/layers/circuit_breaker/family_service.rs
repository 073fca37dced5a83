use std::fmt;
use std::hash::Hash;
use std::task::{Context, Poll};

use tower::Service;

use super::{CircuitBreakerFuture, CircuitBreakers};
use crate::classify::Classify;
use crate::clock;
use crate::error::Rejected;

/// The service of a [`CircuitBreakersLayer`](super::CircuitBreakersLayer).
///
/// It is ready when the service inside is: which breaker a call meets is known from its request alone. For the same
/// reason an error of readiness counts for none.
pub struct CircuitBreakersService<S, K, F, C> {
    pub(super) inner: S,
    pub(super) breakers: CircuitBreakers<K>,
    pub(super) key: F,
    pub(super) classify: C,
}

impl<S, K, F, C, Req> Service<Req> for CircuitBreakersService<S, K, F, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    K: Hash + Eq + fmt::Display,
    F: Fn(&Req) -> K,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CircuitBreakerFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let begun = clock::begin();
        match self.breakers.try_acquire_at((self.key)(&request), begun.at) {
            Ok(permit) => {
                let classify = self.classify.clone();
                CircuitBreakerFuture::running(permit, classify, self.inner.call(request))
            }
            Err(rejected) => CircuitBreakerFuture::refused(Err(rejected.into())),
        }
    }
}

impl<S: Clone, K, F: Clone, C: Clone> Clone for CircuitBreakersService<S, K, F, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breakers: self.breakers.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<S: fmt::Debug, K, F, C> fmt::Debug for CircuitBreakersService<S, K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakersService")
            .field("breakers", &self.breakers)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
