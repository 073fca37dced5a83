use std::mem;
use std::task::{Context, Poll, Waker};

use tower::{Layer, Service};

use super::future::BulkheadFuture;
use super::handle::{Admitted, Bulkhead};
use super::hold::{Hold, Release};
use crate::error::Rejected;

/// Puts calls behind a [`Bulkhead`].
#[derive(Clone, Debug)]
pub struct BulkheadLayer<H = Release> {
    bulkhead: Bulkhead,
    hold: H,
}

impl BulkheadLayer {
    #[inline(always)]
    pub(super) fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            hold: Release,
        }
    }
}

impl<H> BulkheadLayer<H> {
    /// Hands the slot over with the response, to be kept until its body was read: a closure of the response and the
    /// [`Permit`](super::Permit). Default: the slot comes back with the response.
    #[must_use]
    pub fn hold<J>(self, hold: J) -> BulkheadLayer<J> {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            hold,
        }
    }
}

impl<S, H: Clone> Layer<S> for BulkheadLayer<H> {
    type Service = BulkheadService<S, H>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService {
            inner,
            bulkhead: self.bulkhead.clone(),
            hold: self.hold.clone(),
        }
    }
}

/// The service of a [`BulkheadLayer`].
#[derive(Clone, Debug)]
pub struct BulkheadService<S, H = Release> {
    inner: S,
    bulkhead: Bulkhead,
    hold: H,
}

impl<S, Req, H> Service<Req> for BulkheadService<S, H>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    H: Hold<S::Response> + Clone,
{
    type Response = H::Response;
    type Error = S::Error;
    type Future = BulkheadFuture<S, Req, S::Future, S::Error, H>;

    /// Always ready. The inner service's readiness may be a slot of somebody else's: each call asks for it once it has
    /// a slot of its own, so that a call that waits, or a clone that idles, holds nothing.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let permit = match self.bulkhead.admit() {
            Ok(Admitted::Now(permit)) => permit,
            Ok(Admitted::Later(acquire)) => {
                let inner = self.inner.clone();
                return BulkheadFuture::waiting(acquire, inner, request, self.hold.clone());
            }
            Err(rejected) => return BulkheadFuture::over(rejected.into()),
        };
        // A look without a waker: if it is not ready, the future asks again with its own.
        match self
            .inner
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(())) => {
                let hold = self.hold.clone();
                BulkheadFuture::running(permit, hold, || self.inner.call(request))
            }
            Poll::Ready(Err(error)) => BulkheadFuture::over(error),
            Poll::Pending => {
                // What was asked goes with the call, so that the one that stays here holds nothing.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                BulkheadFuture::readying(inner, request, permit, self.hold.clone())
            }
        }
    }
}
