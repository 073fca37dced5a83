use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::{Layer, Service};

use super::future::Voice;
use super::gathering::{Open, SameBatch};
use super::{Batch, CoalesceFuture, Share, ShareErrors};
use crate::error::Rejected;
use crate::observe::Observer;

/// Gathers calls for a moment, and makes one of them.
#[derive(Debug)]
pub struct BatchLayer<B, X = ShareErrors> {
    pub(super) batch: Arc<B>,
    pub(super) size: usize,
    pub(super) window: Duration,
    pub(super) share: X,
    pub(super) voice: Voice,
}

impl<B: Batch> BatchLayer<B> {
    /// Makes one call of many as `batch` says.
    pub fn new(batch: B) -> Self {
        Self {
            batch: Arc::new(batch),
            size: SIZE,
            window: WINDOW,
            share: ShareErrors,
            voice: Voice::new("batch"),
        }
    }
}

impl<B, X> BatchLayer<B, X> {
    /// Sends a batch once it holds so many calls, however early that is. The default is 100: that many keys still fit a
    /// URL, and a batch that is lost is not all of the traffic.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    #[must_use]
    #[track_caller]
    pub fn size(mut self, size: usize) -> Self {
        assert!(size > 0, "a batch of no calls is never sent");
        self.size = size;
        self
    }

    /// Sends a batch so long after its first call came, however few it holds. Every call may take that much longer. The
    /// default is 10 ms: little beside a call over a network, and enough to gather what one page asks for.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Says how the error of a batch answers its callers. The default is [`ShareErrors`].
    #[must_use]
    pub fn share<Y>(self, share: Y) -> BatchLayer<B, Y> {
        BatchLayer {
            batch: self.batch,
            size: self.size,
            window: self.window,
            share,
            voice: self.voice,
        }
    }

    /// Says whose calls these are, in a refusal and to the observer. It has no name by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.voice.name = Some(name.into());
        self
    }

    /// Tells `observer` of each caller who joined the batch of another, whose deadline passed, for whom the answer had
    /// nothing, or whose batch panicked in the hands of another.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.voice.observer = observer.into();
        self
    }
}

impl<B, X: Clone> Clone for BatchLayer<B, X> {
    fn clone(&self) -> Self {
        Self {
            batch: Arc::clone(&self.batch),
            size: self.size,
            window: self.window,
            share: self.share.clone(),
            voice: self.voice.clone(),
        }
    }
}

impl<S, B, X> Layer<S> for BatchLayer<B, X>
where
    S: Service<B::Merged, Response = B::Answer>,
    B: Batch,
    X: Clone,
{
    type Service = BatchService<S, B, X>;

    fn layer(&self, inner: S) -> Self::Service {
        BatchService {
            inner,
            open: Open::default(),
            layer: Arc::new(self.clone()),
        }
    }
}

/// The service of a [`BatchLayer`]. Its clones fill the same batches; those of another service of the same layer are
/// apart.
pub struct BatchService<S: Service<B::Merged, Response = B::Answer>, B: Batch, X = ShareErrors> {
    inner: S,
    open: Open<S, B>,
    layer: Arc<BatchLayer<B, X>>,
}

impl<S, B, X> Clone for BatchService<S, B, X>
where
    S: Service<B::Merged, Response = B::Answer> + Clone,
    B: Batch,
{
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            open: self.open.clone(),
            layer: Arc::clone(&self.layer),
        }
    }
}

impl<S, B, X> Service<B::Request> for BatchService<S, B, X>
where
    S: Service<B::Merged, Response = B::Answer, Error: From<Rejected>> + Clone,
    B: Batch,
    X: Share<S::Error>,
{
    type Response = B::Response;
    type Error = S::Error;
    type Future = CoalesceFuture<SameBatch<S, B, X>>;

    /// Always ready: the batch asks for the inner service's readiness once it is sent.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: B::Request) -> Self::Future {
        let group = SameBatch {
            open: self.open.clone(),
            inner: self.inner.clone(),
            layer: Arc::clone(&self.layer),
            joined: None,
        };
        CoalesceFuture::new(group, request)
    }
}

const SIZE: usize = 100;
const WINDOW: Duration = Duration::from_millis(10);
