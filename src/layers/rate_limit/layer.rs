use std::fmt;

use tower::Layer;

use super::{RateLimitService, RateLimiter};

/// Puts calls behind a [`RateLimiter`]; made by [`RateLimiter::layer`] and [`RateLimiter::layer_by`].
pub struct RateLimitLayer<K, A> {
    limiter: RateLimiter<K>,
    ask: A,
}

impl<K, A> RateLimitLayer<K, A> {
    pub(super) fn new(limiter: RateLimiter<K>, ask: A) -> Self {
        Self { limiter, ask }
    }

    /// Says how many permits a request takes: by its size, or by how much work it is. Default one each; 0 passes
    /// freely.
    #[must_use]
    pub fn cost<Req, F>(self, cost: F) -> RateLimitLayer<K, Costing<A, F>>
    where
        F: Fn(&Req) -> u32,
    {
        RateLimitLayer {
            limiter: self.limiter,
            ask: Costing {
                ask: self.ask,
                cost,
            },
        }
    }
}

impl<S, K, A: Clone> Layer<S> for RateLimitLayer<K, A> {
    type Service = RateLimitService<S, K, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.limiter.clone(), self.ask.clone())
    }
}

impl<K, A: Clone> Clone for RateLimitLayer<K, A> {
    fn clone(&self) -> Self {
        Self::new(self.limiter.clone(), self.ask.clone())
    }
}

impl<K, A> fmt::Debug for RateLimitLayer<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

/// What a request asks of a limiter.
pub trait Ask<Req> {
    /// What the limiter tells requests apart by.
    type Key;

    /// Whose permits the request takes.
    fn key(&self, request: &Req) -> Self::Key;

    /// How many it takes.
    fn cost(&self, _: &Req) -> u32 {
        1
    }
}

/// The same limit for all; see [`RateLimiter::layer`].
#[derive(Clone, Copy, Debug)]
pub struct Everyone;

impl<Req> Ask<Req> for Everyone {
    type Key = ();

    fn key(&self, _: &Req) {}
}

/// A limit for each key; see [`RateLimiter::layer_by`].
#[derive(Clone, Copy, Debug)]
pub struct By<F>(pub(super) F);

impl<F, Req, K> Ask<Req> for By<F>
where
    F: Fn(&Req) -> K,
{
    type Key = K;

    fn key(&self, request: &Req) -> K {
        (self.0)(request)
    }
}

/// Requests of different costs; see [`RateLimitLayer::cost`].
#[derive(Clone, Copy, Debug)]
pub struct Costing<A, F> {
    ask: A,
    cost: F,
}

impl<A, F, Req> Ask<Req> for Costing<A, F>
where
    A: Ask<Req>,
    F: Fn(&Req) -> u32,
{
    type Key = A::Key;

    fn key(&self, request: &Req) -> A::Key {
        self.ask.key(request)
    }

    fn cost(&self, request: &Req) -> u32 {
        (self.cost)(request)
    }
}
