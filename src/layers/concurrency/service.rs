use std::task::{Context, Poll};

use tower::Service;

use super::{ConcurrencyFuture, ConcurrencyLimit, Prioritise};
use crate::admitted::Admitted;
use crate::classify::Classify;
use crate::error::Rejected;

/// The service of a [`ConcurrencyLayer`](super::ConcurrencyLayer).
#[derive(Clone, Debug)]
pub struct ConcurrencyService<S, P, C> {
    pub(super) inner: S,
    pub(super) limit: ConcurrencyLimit,
    pub(super) priority: P,
    pub(super) classify: C,
}

impl<S, P, C, Req> Service<Req> for ConcurrencyService<S, P, C>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    P: Prioritise<Req>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, Req, S::Future, S::Error, C>;

    /// Always ready. The inner service is asked once a call has its slot, so that a call that waits, or a clone that
    /// idles, holds nothing.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let priority = self.priority.priority(&request);
        let entry = self.limit.admit(priority, self.priority.caller(&request));
        let call = Admitted::new(entry, &mut self.inner, request);
        ConcurrencyFuture::new(call, self.classify.clone())
    }
}
