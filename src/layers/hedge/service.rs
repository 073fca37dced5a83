use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use super::plan::Plan;
use super::{CopyRequest, HedgeFuture, HedgeLayer};
use crate::classify::Classify;
use crate::clock;

/// The service of a [`HedgeLayer`].
#[derive(Debug)]
pub struct Hedge<S, C, K> {
    inner: S,
    policy: Arc<HedgeLayer<C, K>>,
}

impl<S, C, K> Hedge<S, C, K> {
    pub(super) fn new(inner: S, policy: HedgeLayer<C, K>) -> Self {
        Self {
            inner,
            policy: Arc::new(policy),
        }
    }
}

impl<S: Clone, C, K> Clone for Hedge<S, C, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S, C, K, Req> Service<Req> for Hedge<S, C, K>
where
    S: Service<Req> + Clone,
    C: CopyRequest<Req>,
    K: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HedgeFuture<S, Req, C, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let policy = &self.policy;
        if policy.settings.attempts == 1 {
            return HedgeFuture::new(self.inner.call(request), None, None);
        }
        let now = clock::now();
        let copy = policy.copy.copy(&request, 2);
        // The clone may not be ready: it stays here, and the one that was made ready is called.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let primary = inner.call(request);
        let sample = copy
            .as_ref()
            .and_then(|_| policy.settings.delay.measure(now));
        let plan = Plan::new(Arc::clone(policy), inner, copy, now);
        HedgeFuture::new(primary, Some(plan), sample)
    }
}
