use std::fmt;
use std::time::Duration;

use tower::Layer;

use super::{HeedService, RateLimitService};
use crate::error::Rejected;

/// Puts calls behind a [`Limiter`]; made by [`RateLimiter::layer`](super::RateLimiter::layer) and
/// [`RateLimiter::layer_by`](super::RateLimiter::layer_by).
#[derive(Clone)]
pub struct RateLimitLayer<L, A, H = Unheeded> {
    limiter: L,
    ask: A,
    heed: H,
}

impl<L, A> RateLimitLayer<L, A> {
    pub(crate) fn new(limiter: L, ask: A) -> Self {
        Self {
            limiter,
            ask,
            heed: Unheeded,
        }
    }
}

impl<L, A, H> RateLimitLayer<L, A, H> {
    /// Says how many permits a request takes: by its size, or by how much work it is. Default one each; 0 passes
    /// freely.
    #[must_use]
    pub fn cost<Req, F>(self, cost: F) -> RateLimitLayer<L, Costing<A, F>, H>
    where
        F: Fn(&Req) -> u32,
    {
        RateLimitLayer {
            limiter: self.limiter,
            ask: Costing {
                ask: self.ask,
                cost,
            },
            heed: self.heed,
        }
    }

    /// Heeds what the peer says of itself, by the [`Outcome`](crate::Outcome) of a result. After an `Overload` that names
    /// a time nobody is let in for so long, at most an hour, and who is refused is told exactly when it ends; one without
    /// a time takes whatever permits are there. With keys it is the key of the request that is held back. The other
    /// outcomes change nothing. By default results are not looked at.
    ///
    /// The rules of HTTP and gRPC name such a time for 429 and 503 with `Retry-After`, and `RESOURCE_EXHAUSTED` and
    /// `UNAVAILABLE` with `grpc-retry-pushback-ms`. The function of the key is asked twice for a call.
    #[must_use]
    pub fn classify<C>(self, classify: C) -> RateLimitLayer<L, A, Heeding<C>> {
        RateLimitLayer {
            limiter: self.limiter,
            ask: self.ask,
            heed: Heeding(classify),
        }
    }
}

impl<S, L: Clone, A: Clone> Layer<S> for RateLimitLayer<L, A> {
    type Service = RateLimitService<S, L, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.limiter.clone(), self.ask.clone())
    }
}

impl<S, L: Clone, A: Clone, C: Clone> Layer<S> for RateLimitLayer<L, A, Heeding<C>> {
    type Service = RateLimitService<HeedService<S, L, A, C>, L, A>;

    fn layer(&self, inner: S) -> Self::Service {
        let (limiter, ask) = (self.limiter.clone(), self.ask.clone());
        let heeds = HeedService::new(inner, limiter, ask, self.heed.0.clone());
        RateLimitService::new(heeds, self.limiter.clone(), self.ask.clone())
    }
}

impl<L: fmt::Debug, A, H> fmt::Debug for RateLimitLayer<L, A, H> {
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

    /// Heeds a peer that says that it has too much to do, and perhaps for how long, about a call for `key`.
    fn overloaded(&self, key: Self::Key, wait: Option<Duration>);
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

/// Results are not looked at; see [`RateLimitLayer::classify`].
#[derive(Clone, Copy, Debug)]
pub struct Unheeded;

/// Overloads are heeded; see [`RateLimitLayer::classify`].
#[derive(Clone, Copy, Debug)]
pub struct Heeding<C>(C);
