use tower::Layer;

use super::Pipeline;
use crate::layers::bulkhead::BulkheadLayer;
use crate::layers::circuit_breaker::CircuitBreakerLayer;
use crate::layers::fallback::FallbackLayer;
use crate::layers::retry::RetryLayer;
use crate::layers::timeout::{Fixed, TimeoutLayer};

/// Fallback, retry, circuit breaker, bulkhead and timeout, in this order, as one layer.
#[derive(Clone, Debug)]
pub struct PipelineLayer<A, R, C, L = Fixed> {
    fallback: FallbackLayer<A>,
    retry: RetryLayer<R>,
    breaker: CircuitBreakerLayer<C>,
    bulkhead: BulkheadLayer,
    timeout: TimeoutLayer<L>,
}

impl<A, R, C, L> PipelineLayer<A, R, C, L> {
    /// Does what these do one inside the other, the fallback outermost.
    pub fn new(
        fallback: FallbackLayer<A>,
        retry: RetryLayer<R>,
        breaker: CircuitBreakerLayer<C>,
        bulkhead: BulkheadLayer,
        timeout: TimeoutLayer<L>,
    ) -> Self {
        Self {
            fallback,
            retry,
            breaker,
            bulkhead,
            timeout,
        }
    }
}

impl<S, A, R, C, L> Layer<S> for PipelineLayer<A, R, C, L>
where
    S: Clone,
    A: Clone,
    R: Clone,
    C: Clone,
    L: Clone,
{
    type Service = Pipeline<S, A, R, C, L>;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = self.bulkhead.layer(self.timeout.layer(inner));
        let inner = self.retry.layer(self.breaker.layer(inner));
        Pipeline::new(self.fallback.layer(inner))
    }
}
