use std::fmt;

use tower::Layer;

use super::{CircuitBreakers, CircuitBreakersService};
use crate::classify::ErrorsFail;

/// Guards each call of a service with the breaker of its key; made by [`CircuitBreakers::layer`].
pub struct CircuitBreakersLayer<K, F, C> {
    breakers: CircuitBreakers<K>,
    key: F,
    classify: C,
}

impl<K, F> CircuitBreakersLayer<K, F, ErrorsFail> {
    pub(super) fn new(breakers: CircuitBreakers<K>, key: F) -> Self {
        Self {
            breakers,
            key,
            classify: ErrorsFail,
        }
    }
}

impl<K, F, C> CircuitBreakersLayer<K, F, C> {
    /// Says which results count against the key. Default [`ErrorsFail`]: every error, save the refusals of layers inside.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> CircuitBreakersLayer<K, F, D> {
        CircuitBreakersLayer {
            breakers: self.breakers,
            key: self.key,
            classify,
        }
    }
}

impl<S, K, F: Clone, C: Clone> Layer<S> for CircuitBreakersLayer<K, F, C> {
    type Service = CircuitBreakersService<S, K, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakersService {
            inner,
            breakers: self.breakers.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<K, F: Clone, C: Clone> Clone for CircuitBreakersLayer<K, F, C> {
    fn clone(&self) -> Self {
        Self {
            breakers: self.breakers.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<K, F, C> fmt::Debug for CircuitBreakersLayer<K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakersLayer")
            .field("breakers", &self.breakers)
            .finish_non_exhaustive()
    }
}
