use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::handle::Acquire;
use crate::admitted::Admitted;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`RateLimitService`](super::RateLimitService).
    #[derive(Debug)]
    pub struct RateLimitFuture<S, Req, F> {
        #[pin]
        call: Admitted<Acquire, (), S, Req, F>,
    }
}

impl<S, Req, F> RateLimitFuture<S, Req, F> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req) -> Self {
        Self {
            call: Admitted::new(acquire, inner, request),
        }
    }
}

impl<S, Req> Future for RateLimitFuture<S, Req, S::Future>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, _permits) = ready!(self.project().call.poll(cx));
        Poll::Ready(result)
    }
}
