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
    pub struct ConcurrencyFuture<S, Req, F, C> {
        #[pin]
        call: Admitted<Acquire, Permit, S, Req, F>,
        classify: Option<C>,
    }
}

impl<S, Req, F, C> ConcurrencyFuture<S, Req, F, C> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req, classify: C) -> Self {
        Self {
            call: Admitted::new(acquire, inner, request),
            classify: Some(classify),
        }
    }

    pub(super) fn refused(rejected: Rejected) -> Self {
        Self {
            call: Admitted::refused(rejected),
            classify: None,
        }
    }
}

impl<S, Req, C> Future for ConcurrencyFuture<S, Req, S::Future, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (result, permit) = ready!(this.call.poll(cx));
        if let (Some(permit), Some(classify)) = (permit, this.classify) {
            permit.record(classify.classify(result.as_ref()));
        }
        Poll::Ready(result)
    }
}
