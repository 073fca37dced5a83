use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Acquire, Hold, Permit};
use crate::admitted::Admitted;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`BulkheadService`](super::BulkheadService).
    #[derive(Debug)]
    pub struct BulkheadFuture<S, Req, F, E, H> {
        #[pin]
        call: Admitted<Acquire, Permit, S, Req, F, E>,
        hold: H,
    }
}

impl<S, Req, F, E, H> BulkheadFuture<S, Req, F, E, H> {
    #[inline(always)]
    pub(super) fn new(call: Admitted<Acquire, Permit, S, Req, F, E>, hold: H) -> Self {
        Self { call, hold }
    }
}

impl<S, Req, H> Future for BulkheadFuture<S, Req, S::Future, S::Error, H>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Response, S::Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The slot ends with the call, not when somebody drops this future.
        let (result, permit) = ready!(this.call.poll(cx));
        Poll::Ready(result.map(|response| this.hold.hold(response, permit.expect("granted"))))
    }
}
