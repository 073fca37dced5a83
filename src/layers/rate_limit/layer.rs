use std::fmt;

use tower::Layer;

use super::RateLimitService;
use crate::error::Rejected;

/// Puts calls behind a [`Limiter`]; made by [`RateLimiter::layer`](super::RateLimiter::layer) and
/// [`RateLimiter::layer_by`](super::RateLimiter::layer_by).
#[derive(Clone)]
pub struct RateLimitLayer<L, A> {
    limiter: L,
    ask: A,
}

impl<L, A> RateLimitLayer<L, A> {
    pub(crate) fn new(limiter: L, ask: A) -> Self {
        Self { limiter, ask }
    }

    /// Says how many permits a request takes: by its size, or by how much work it is. Default one each; 0 passes
    /// freely.
    #[must_use]
    pub fn cost<Req, F>(self, cost: F) -> RateLimitLayer<L, Costing<A, F>>
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

impl<S, L: Clone, A: Clone> Layer<S> for RateLimitLayer<L, A> {
    type Service = RateLimitService<S, L, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.limiter.clone(), self.ask.clone())
    }
}

impl<L: fmt::Debug, A> fmt::Debug for RateLimitLayer<L, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

/// Gives out permits: a [`RateLimiter`](super::RateLimiter), or a limiter that processes share.
pub trait Limiter {
    /// What it tells calls apart by.
    type Key;
    /// The wait for permits. Dropped before it is done, it gives back what it can.
    type Acquire: Future<Output = Result<(), Rejected>>;

    /// Asks for `permits` for `key`.
    fn acquire_for(&self, key: Self::Key, permits: u32) -> Self::Acquire;

    /// Takes `permits` for `key` that are there for a call which begins now; else the wait for them.
    ///
    /// # Errors
    ///
    /// What a refused call is told.
    fn enter(&self, key: Self::Key, permits: u32) -> Result<Option<Self::Acquire>, Rejected> {
        Ok(Some(self.acquire_for(key, permits)))
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

/// The same limit for all; see [`RateLimiter::layer`](super::RateLimiter::layer).
#[derive(Clone, Copy, Debug)]
pub struct Everyone;

impl<Req> Ask<Req> for Everyone {
    type Key = ();

    fn key(&self, _: &Req) {}
}

/// A limit for each key; see [`RateLimiter::layer_by`](super::RateLimiter::layer_by).
#[derive(Clone, Copy, Debug)]
pub struct By<F>(pub(crate) F);

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
