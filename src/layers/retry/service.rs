use std::task::{Context, Poll};

use tower::Service;

use super::future::RetryFuture;
use super::plan::Plan;
use super::shared::Shared;
use super::{RetryLayer, Rules};
use crate::algo::lanes::Spread;

/// The service of a [`RetryLayer`].
#[derive(Debug)]
pub struct Retry<S, R> {
    pub(crate) inner: S,
    pub(crate) shared: Spread<Shared<S, R>>,
}

impl<S: Clone, R> Retry<S, R> {
    #[inline(always)]
    pub(super) fn new(inner: S, policy: RetryLayer<R>) -> Self {
        Self {
            shared: Spread::new(Shared::new(policy, inner.clone())),
            inner,
        }
    }
}

impl<S: Clone, R> Clone for Retry<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S, R, Req> Service<Req> for Retry<S, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, Req, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let policy = &self.shared.policy;
        if policy.settings.attempts == 1 {
            policy.rules.mark(&mut request, 1);
            return RetryFuture::new(None, self.inner.call(request));
        }
        let (mut first, request) = match policy.rules.replay(&request, 1) {
            Some(copy) => (copy, Some(request)),
            None => (request, None),
        };
        policy.rules.mark(&mut first, 1);
        let plan = Plan::new(self.shared.share(), request);
        RetryFuture::new(Some(plan), self.inner.call(first))
    }
}
