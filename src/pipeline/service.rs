use std::fmt;
use std::mem;
use std::task::{Context, Poll, Waker};

use tower::Service;

use super::PipelineFuture;
use super::held::{Held, Making, Shared};
use crate::algo::lanes::Spread;
use crate::classify::Classify;
use crate::clock;
use crate::error::Rejected;
use crate::layers::bulkhead::BulkheadService;
use crate::layers::circuit_breaker::CircuitBreakerService;
use crate::layers::fallback::{Answer, Fallback};
use crate::layers::retry::{Retry, Rules};
use crate::layers::timeout::{Fixed, Limits, Timeout, TimeoutFuture};

/// The service of a [`PipelineLayer`](super::PipelineLayer).
pub struct Pipeline<S, A, R, C, L = Fixed> {
    layers: Layers<S, A, R, C, L>,
    shared: Spread<Shared<S, A, R, C, L>>,
}

/// The service that the layers make one inside the other.
pub(super) type Layers<S, A, R, C, L> = Fallback<Retry<Attempts<S, C, L>, R>, A>;

/// What each attempt passes.
pub(super) type Attempts<S, C, L> = CircuitBreakerService<BulkheadService<Timeout<S, L>>, C>;

impl<S, A, R, C, L> Pipeline<S, A, R, C, L>
where
    S: Clone,
    C: Clone,
    L: Clone,
{
    pub(super) fn new(layers: Layers<S, A, R, C, L>) -> Self {
        let shared = Spread::new(Shared::new(&layers));
        Self { layers, shared }
    }
}

impl<S, A, R, C, L> Clone for Pipeline<S, A, R, C, L>
where
    S: Clone,
    C: Clone,
    L: Clone,
{
    fn clone(&self) -> Self {
        Self {
            layers: self.layers.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S, A, R, C, L, Req> Service<Req> for Pipeline<S, A, R, C, L>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error> + Clone,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = PipelineFuture<S, A, R, C, L, Req>;

    /// Always ready, as a fallback is: each call asks for the inner service's readiness.
    #[inline(always)]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        // A call that finds nothing in its way makes its first attempt here. All others go through the layers.
        let shared = &*self.shared;
        let Some(epoch) = shared.breaker.flowing() else {
            return self.call_layers(request);
        };
        if !shared.begins || !shared.slots.take() {
            return self.call_layers(request);
        }
        let begun = clock::begin();
        let mut making = Making {
            shared,
            epoch,
            began: begun.at,
            counts: true,
        };
        let timeout = &mut self.layers.inner.inner.inner.inner;
        // A look without a waker: if it is not ready, the layers ask again.
        match timeout.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return unready(making, &self.shared, epoch, request, error),
            Poll::Pending => {
                making.counts = false;
                drop(making);
                // What was asked may stand in a queue, and the layers may come to ask another, or none.
                *timeout = timeout.clone();
                return self.call_layers(request);
            }
        }
        making.counts = false;
        let (kept, first, request) = shared.prepare(request);
        making.counts = true;
        let share = self.shared.share();
        let attempt = timeout.call_at(begun.at, first);
        mem::forget(making);
        let held = Held::new(share, epoch, begun.at, request, kept);
        PipelineFuture::first(held, attempt)
    }
}

impl<S, A, R, C, L> Pipeline<S, A, R, C, L> {
    #[cold]
    fn call_layers<Req>(&mut self, request: Req) -> PipelineFuture<S, A, R, C, L, Req>
    where
        S: Service<Req> + Clone,
        S::Error: From<Rejected>,
        A: Answer<Req, S::Response, S::Error> + Clone,
        R: Rules<Req, S::Response, S::Error>,
        C: Classify<S::Response, S::Error> + Clone,
        L: Limits<Req> + Clone,
    {
        PipelineFuture::layers(self.layers.call(request))
    }
}

/// The first attempt has failed with the readiness of the service inside.
#[cold]
fn unready<S, A, R, C, L, Req>(
    mut making: Making<'_, S, A, R, C, L>,
    shared: &Spread<Shared<S, A, R, C, L>>,
    epoch: u64,
    request: Req,
    error: S::Error,
) -> PipelineFuture<S, A, R, C, L, Req>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error> + Clone,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    let begun = clock::begin();
    making.counts = false;
    let (kept, _, request) = shared.prepare(request);
    let held = Held::new(shared.share(), epoch, begun.at, request, kept);
    mem::forget(making);
    PipelineFuture::first(held, TimeoutFuture::over(Err(error)))
}

impl<S, A, R, C, L> fmt::Debug for Pipeline<S, A, R, C, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}
