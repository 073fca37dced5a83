use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Ask, Limiter};
use crate::classify::{Classify, Outcome};

/// Tells the limiter around it of calls that ended with an overload; see
/// [`RateLimitLayer::classify`](super::RateLimitLayer::classify).
#[derive(Clone)]
pub struct HeedService<S, L, A, C> {
    inner: S,
    limiter: L,
    ask: A,
    classify: C,
}

impl<S, L, A, C> HeedService<S, L, A, C> {
    pub(super) fn new(inner: S, limiter: L, ask: A, classify: C) -> Self {
        Self {
            inner,
            limiter,
            ask,
            classify,
        }
    }
}

impl<S, L, A, C, Req> Service<Req> for HeedService<S, L, A, C>
where
    S: Service<Req>,
    L: Limiter + Clone,
    A: Ask<Req, Key = L::Key>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HeedFuture<S::Future, L, L::Key, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        HeedFuture {
            limiter: self.limiter.clone(),
            key: Some(self.ask.key(&request)),
            classify: self.classify.clone(),
            inner: self.inner.call(request),
        }
    }
}

impl<S: fmt::Debug, L: fmt::Debug, A, C> fmt::Debug for HeedService<S, L, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeedService")
            .field("limiter", &self.limiter)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a [`HeedService`].
    #[derive(Debug)]
    pub struct HeedFuture<F, L, K, C> {
        #[pin]
        inner: F,
        limiter: L,
        // Taken once the call has ended.
        key: Option<K>,
        classify: C,
    }
}

impl<F, L, C, Res, E> Future for HeedFuture<F, L, L::Key, C>
where
    F: Future<Output = Result<Res, E>>,
    L: Limiter,
    C: Classify<Res, E>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.project();
        let result = ready!(call.inner.poll(cx));
        let key = call.key.take().expect("polled after completion");
        if let Outcome::Overload(wait) = call.classify.classify(result.as_ref()) {
            call.limiter.overloaded(key, wait);
        }
        Poll::Ready(result)
    }
}
