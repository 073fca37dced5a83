use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::future::BulkheadFuture;
use super::handle::Bulkhead;
use super::hold::{Hold, Release};
use crate::admitted::Admitted;
use crate::error::Rejected;

/// Puts calls behind a [`Bulkhead`], or behind one for each request: [`By`](super::By).
#[derive(Clone, Debug)]
pub struct BulkheadLayer<H = Release, B = Bulkhead> {
    bulkhead: B,
    hold: H,
}

impl<B> BulkheadLayer<Release, B> {
    #[inline(always)]
    pub(super) fn new(bulkhead: B) -> Self {
        Self {
            bulkhead,
            hold: Release,
        }
    }
}

impl<H, B> BulkheadLayer<H, B> {
    /// Hands the slot over with the response, to be kept until its body was read: a closure of the response and the
    /// [`Permit`](super::Permit). Default: the slot comes back with the response.
    #[must_use]
    pub fn hold<J>(self, hold: J) -> BulkheadLayer<J, B> {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            hold,
        }
    }

    pub(super) fn map<C>(self, map: impl FnOnce(B) -> C) -> BulkheadLayer<H, C> {
        BulkheadLayer {
            bulkhead: map(self.bulkhead),
            hold: self.hold,
        }
    }
}

impl<S, H: Clone, B: Clone> Layer<S> for BulkheadLayer<H, B> {
    type Service = BulkheadService<S, H, B>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService {
            inner,
            bulkhead: self.bulkhead.clone(),
            hold: self.hold.clone(),
        }
    }
}

/// The service of a [`BulkheadLayer`].
#[derive(Clone, Debug)]
pub struct BulkheadService<S, H = Release, B = Bulkhead> {
    pub(crate) inner: S,
    pub(crate) bulkhead: B,
    pub(super) hold: H,
}

impl<S, Req, H> Service<Req> for BulkheadService<S, H>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    H: Hold<S::Response> + Clone,
{
    type Response = H::Response;
    type Error = S::Error;
    type Future = BulkheadFuture<S, Req, S::Future, S::Error, H>;

    /// Always ready. The inner service's readiness may be a slot of somebody else's: each call asks for it once it has
    /// a slot of its own, so that a call that waits, or a clone that idles, holds nothing.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let call = Admitted::new(self.bulkhead.admit(), &mut self.inner, request);
        BulkheadFuture::new(call, self.hold.clone())
    }
}
