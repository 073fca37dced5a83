use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::future::BulkheadFuture;
use super::handle::Bulkhead;
use crate::error::Rejected;

/// Puts calls behind a [`Bulkhead`].
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
}

impl BulkheadLayer {
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
    type Future = BulkheadFuture<S, Req, S::Future>;

    /// Always ready. The inner service's readiness may be a slot of somebody else's: each call asks for it once it has
    /// a slot of its own, so that a call that waits, or a clone that idles, holds nothing.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.bulkhead.admit() {
            Ok(acquire) => BulkheadFuture::new(acquire, self.inner.clone(), request),
            Err(rejected) => BulkheadFuture::refused(rejected),
        }
    }
}
