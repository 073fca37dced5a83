use tower::Layer;

use super::{CircuitBreaker, CircuitBreakerService};
use crate::classify::ErrorsFail;

/// Guards a service with a [`CircuitBreaker`]; made by [`CircuitBreaker::layer`].
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C> {
    breaker: CircuitBreaker,
    classify: C,
}

impl CircuitBreakerLayer<ErrorsFail> {
    pub(super) fn new(breaker: CircuitBreaker) -> Self {
        Self {
            breaker,
            classify: ErrorsFail,
        }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Says which results count against the peer. Default [`ErrorsFail`]: every error, save the refusals of layers
    /// inside.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> CircuitBreakerLayer<D> {
        CircuitBreakerLayer {
            breaker: self.breaker,
            classify,
        }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService::new(inner, self.breaker.clone(), self.classify.clone())
    }
}
