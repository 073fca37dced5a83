use std::fmt;
use std::task::{Context, Poll};

use tower::Service;

use super::{Bulkhead, BulkheadFuture, BulkheadService, Hold};
use crate::admitted::Admitted;
use crate::error::Rejected;

/// A bulkhead for each request: the one of [`Bulkheads`](super::Bulkheads) or [`Partitions`](super::Partitions) that a
/// closure names.
#[derive(Clone)]
pub struct By<B, F> {
    pub(super) bulkheads: B,
    pub(super) name: F,
}

/// Says which bulkhead a request is put behind.
pub trait Select<Req> {
    /// What `enter` makes of the bulkhead of the request.
    fn select<T>(&self, request: &Req, enter: impl Fn(&Bulkhead) -> T) -> T;
}

impl<S, Req, H, B, F> Service<Req> for BulkheadService<S, H, By<B, F>>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    H: Hold<S::Response> + Clone,
    By<B, F>: Select<Req>,
{
    type Response = H::Response;
    type Error = S::Error;
    type Future = BulkheadFuture<S, Req, S::Future, S::Error, H>;

    /// Always ready, as behind a single bulkhead: which one a call meets is known from its request alone.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let entry = self.bulkhead.select(&request, Bulkhead::admit);
        let call = Admitted::new(entry, &mut self.inner, request);
        BulkheadFuture::new(call, self.hold.clone())
    }
}

impl<B: fmt::Debug, F> fmt::Debug for By<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By")
            .field("bulkheads", &self.bulkheads)
            .finish_non_exhaustive()
    }
}
