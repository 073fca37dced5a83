use std::mem;
use std::task::{Context, Poll, Waker};

use tower::{Layer, Service};

use super::future::BulkheadFuture;
use super::handle::{Admitted, Bulkhead};
use crate::error::Rejected;

/// Puts calls behind a [`Bulkhead`].
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
}

impl BulkheadLayer {
    #[inline]
    pub(super) fn new(bulkhead: Bulkhead) -> Self {
        Self { bulkhead }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService {
            inner,
            bulkhead: self.bulkhead.clone(),
        }
    }
}

/// The service of a [`BulkheadLayer`].
#[derive(Clone, Debug)]
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Bulkhead,
}

impl<S, Req> Service<Req> for BulkheadService<S>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BulkheadFuture<S, Req, S::Future, S::Error>;

    /// Always ready. The inner service's readiness may be a slot of somebody else's: each call asks for it once it has
    /// a slot of its own, so that a call that waits, or a clone that idles, holds nothing.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let permit = match self.bulkhead.admit() {
            Ok(Admitted::Now(permit)) => permit,
            Ok(Admitted::Later(acquire)) => {
                return BulkheadFuture::waiting(acquire, self.inner.clone(), request);
            }
            Err(rejected) => return BulkheadFuture::over(rejected.into()),
        };
        // A look without a waker: if it is not ready, the future asks again with its own.
        match self
            .inner
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(())) => BulkheadFuture::running(permit, || self.inner.call(request)),
            Poll::Ready(Err(error)) => BulkheadFuture::over(error),
            Poll::Pending => {
                // What was asked goes with the call, so that the one that stays here holds nothing.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                BulkheadFuture::readying(inner, request, permit)
            }
        }
    }
}
