use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Throttle, ThrottleFuture};
use crate::classify::{Classify, ErrorsFail};
use crate::error::Rejected;

/// Puts a [`Throttle`] in front of a service; made by [`Throttle::layer`].
#[derive(Clone, Debug)]
pub struct ThrottleLayer<C> {
    throttle: Throttle,
    classify: C,
}

impl ThrottleLayer<ErrorsFail> {
    pub(super) fn new(throttle: Throttle) -> Self {
        Self {
            throttle,
            classify: ErrorsFail,
        }
    }
}

impl<C> ThrottleLayer<C> {
    /// Says which results the peer accepted: successes. What is ignored is not counted. Default [`ErrorsFail`].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ThrottleLayer<D> {
        ThrottleLayer {
            throttle: self.throttle,
            classify,
        }
    }
}

impl<S, C: Clone> Layer<S> for ThrottleLayer<C> {
    type Service = ThrottleService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ThrottleService {
            inner,
            throttle: self.throttle.clone(),
            classify: self.classify.clone(),
        }
    }
}

/// The service of a [`ThrottleLayer`]. It is ready when the service inside is; calls are held back in `call`.
#[derive(Clone, Debug)]
pub struct ThrottleService<S, C> {
    inner: S,
    throttle: Throttle,
    classify: C,
}

impl<S, C, Req> Service<Req> for ThrottleService<S, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ThrottleFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.throttle.admit() {
            Ok(permit) => {
                let inner = self.inner.call(request);
                ThrottleFuture::running(inner, permit, self.classify.clone())
            }
            Err(rejected) => ThrottleFuture::refused(rejected),
        }
    }
}
