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
    pub struct BulkheadFuture<S, Req, F, H> {
        #[pin]
        call: Admitted<Acquire, Permit, S, Req, F>,
        hold: Option<H>,
    }
}

impl<S, Req, F, H> BulkheadFuture<S, Req, F, H> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req, hold: H) -> Self {
        Self {
            call: Admitted::new(acquire, inner, request),
            hold: Some(hold),
        }
    }

    pub(super) fn refused(rejected: Rejected) -> Self {
        Self {
            call: Admitted::refused(rejected),
            hold: None,
        }
    }
}

impl<S, Req, H> Future for BulkheadFuture<S, Req, S::Future, H>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (result, permit) = ready!(this.call.poll(cx));
        Poll::Ready(result.map(|response| {
            let hold = this.hold.take().expect("one response a call");
            hold.hold(response, permit.expect("granted"))
        }))
    }
}
