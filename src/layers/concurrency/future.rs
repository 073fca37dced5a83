use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Permit;
use super::acquire::Acquire;
use crate::admitted::Admitted;
use crate::classify::Classify;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`ConcurrencyService`](super::ConcurrencyService).
    #[derive(Debug)]
    pub struct ConcurrencyFuture<S, Req, F, E, C> {
        #[pin]
        call: Admitted<Acquire, Permit, S, Req, F, E>,
        classify: C,
    }
}

impl<S, Req, F, E, C> ConcurrencyFuture<S, Req, F, E, C> {
    pub(super) fn new(call: Admitted<Acquire, Permit, S, Req, F, E>, classify: C) -> Self {
        Self { call, classify }
    }
}

impl<S, Req, C> Future for ConcurrencyFuture<S, Req, S::Future, S::Error, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (result, permit) = ready!(this.call.poll(cx));
        if let Some(permit) = permit {
            permit.record(this.classify.classify(result.as_ref()));
        }
        Poll::Ready(result)
    }
}
