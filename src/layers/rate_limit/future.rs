use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::admitted::Admitted;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`RateLimitService`](super::RateLimitService).
    #[derive(Debug)]
    pub struct RateLimitFuture<W, S, Req, F, E> {
        #[pin]
        call: Admitted<W, (), S, Req, F, E>,
    }
}

impl<W, S, Req, F, E> RateLimitFuture<W, S, Req, F, E> {
    pub(super) fn new(call: Admitted<W, (), S, Req, F, E>) -> Self {
        Self { call }
    }
}

impl<W, S, Req> Future for RateLimitFuture<W, S, Req, S::Future, S::Error>
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
