use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use super::future::{Plan, RetryFuture};
use super::{RetryLayer, Rules};
use crate::clock;

/// The service of a [`RetryLayer`].
#[derive(Debug)]
pub struct Retry<S, R> {
    inner: S,
    policy: Arc<RetryLayer<R>>,
}

impl<S, R> Retry<S, R> {
    pub(super) fn new(inner: S, policy: RetryLayer<R>) -> Self {
        Self {
            inner,
            policy: Arc::new(policy),
        }
    }
}

impl<S: Clone, R> Clone for Retry<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: Arc::clone(&self.policy),
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

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if self.policy.attempts == 1 {
            return RetryFuture::new(self.inner.call(request), None);
        }
        if let Some(budget) = &self.policy.budget {
            budget.deposit(clock::now());
        }
        let Some(copy) = self.policy.rules.replay(&request, 1) else {
            return RetryFuture::new(self.inner.call(request), None);
        };
        // The clone may not be ready: it stays here, and the one that was made ready is called.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let attempt = inner.call(copy);
        let plan = Plan::new(Arc::clone(&self.policy), inner, request);
        RetryFuture::new(attempt, Some(plan))
    }
}
