use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::admitted::Admitted;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`RateLimitService`](super::RateLimitService).
    #[derive(Debug)]
    pub struct RateLimitFuture<W, S, Req, F> {
        #[pin]
        call: Admitted<W, (), S, Req, F>,
    }
}

impl<W, S, Req, F> RateLimitFuture<W, S, Req, F> {
    pub(super) fn new(acquire: W, inner: S, request: Req) -> Self {
        Self {
            call: Admitted::new(acquire, inner, request),
        }
    }
}

impl<W, S, Req> Future for RateLimitFuture<W, S, Req, S::Future>
where
    W: Future<Output = Result<(), Rejected>>,
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, _permits) = ready!(self.project().call.poll(cx));
        Poll::Ready(result)
    }
}
