use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::future::Voice;
use super::keyed::{Flights, SameKey};
use super::{CoalesceFuture, Share, ShareErrors};
use crate::error::Rejected;
use crate::observe::Observer;

/// Has one call under way for each key, whose answer goes to all who ask for that key meanwhile.
pub struct CoalesceLayer<Req, K, F, X = ShareErrors> {
    key: F,
    pub(super) share: X,
    pub(super) voice: Voice,
    keys: PhantomData<fn(&Req) -> K>,
}

impl<Req, K, F> CoalesceLayer<Req, K, F>
where
    F: Fn(&Req) -> K,
{
    /// Requests of the same `key` are the same: whoever sends one gets the answer to any of them. So the key holds all
    /// that the answer depends on, the caller's rights included.
    pub fn new(key: F) -> Self {
        Self {
            key,
            share: ShareErrors,
            voice: Voice::new("coalesce"),
            keys: PhantomData,
        }
    }
}

impl<Req, K, F, X> CoalesceLayer<Req, K, F, X> {
    /// Says how one error answers several callers. The default is [`ShareErrors`].
    #[must_use]
    pub fn share<Y>(self, share: Y) -> CoalesceLayer<Req, K, F, Y> {
        CoalesceLayer {
            key: self.key,
            share,
            voice: self.voice,
            keys: PhantomData,
        }
    }

    /// Says whose calls these are, in a refusal and to the observer. It has no name by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.voice.name = Some(name.into());
        self
    }

    /// Tells `observer` of each caller who shares the call of another, whose deadline passed, or whose call panicked in the hands of another.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.voice.observer = observer.into();
        self
    }
}

impl<Req, K, F: Clone, X: Clone> Clone for CoalesceLayer<Req, K, F, X> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            share: self.share.clone(),
            voice: self.voice.clone(),
            keys: PhantomData,
        }
    }
}

impl<S, Req, K, F, X> Layer<S> for CoalesceLayer<Req, K, F, X>
where
    S: Service<Req>,
    F: Clone,
    X: Clone,
{
    type Service = Coalesce<S, Req, K, F, X>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce {
            inner,
            flights: Flights::default(),
            layer: Arc::new(self.clone()),
        }
    }
}

/// The service of a [`CoalesceLayer`]. Its clones share the calls under way; those of another service of the same layer
/// are apart.
pub struct Coalesce<S: Service<Req>, Req, K, F, X = ShareErrors> {
    inner: S,
    flights: Flights<S, Req, K>,
    layer: Arc<CoalesceLayer<Req, K, F, X>>,
}

impl<S: Service<Req>, Req, K, F, X> Coalesce<S, Req, K, F, X> {
    /// How many calls are under way.
    pub fn in_flight(&self) -> usize {
        self.flights.lock().by_key.len()
    }
}

impl<S, Req, K, F, X> Clone for Coalesce<S, Req, K, F, X>
where
    S: Service<Req> + Clone,
{
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            flights: self.flights.clone(),
            layer: Arc::clone(&self.layer),
        }
    }
}

impl<S, Req, K, F, X> Service<Req> for Coalesce<S, Req, K, F, X>
where
    S: Service<Req, Response: Clone, Error: From<Rejected>> + Clone,
    K: Hash + Eq + Clone,
    F: Fn(&Req) -> K,
    X: Share<S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CoalesceFuture<SameKey<S, Req, K, F, X>>;

    /// Always ready: who shares a call needs no readiness of the inner service. The call asks for it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let group = SameKey {
            flights: self.flights.clone(),
            key: (self.layer.key)(&request),
            inner: self.inner.clone(),
            layer: Arc::clone(&self.layer),
        };
        CoalesceFuture::new(group, request)
    }
}
