use tower::Layer;

use super::{AllEqual, ConcurrencyLimit, ConcurrencyService, Fair};
use crate::classify::ErrorsFail;

/// Puts calls behind a [`ConcurrencyLimit`]; made by [`ConcurrencyLimit::layer`].
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer<P, C> {
    limit: ConcurrencyLimit,
    priority: P,
    classify: C,
}

impl ConcurrencyLayer<AllEqual, ErrorsFail> {
    pub(super) fn new(limit: ConcurrencyLimit) -> Self {
        Self {
            limit,
            priority: AllEqual,
            classify: ErrorsFail,
        }
    }
}

impl<P, C> ConcurrencyLayer<P, C> {
    /// Says how much each request matters. Default: all are equal, and each may use the whole limit.
    #[must_use]
    pub fn priority<Q>(self, priority: Q) -> ConcurrencyLayer<Q, C> {
        ConcurrencyLayer {
            limit: self.limit,
            priority,
            classify: self.classify,
        }
    }

    /// Says whose each request is. Those of equal priority that wait are served caller by caller, in rounds, and the
    /// caller with most waiting is the first to lose one: so nobody gets more by asking for more. Without a
    /// [queue](ConcurrencyLimit::queue) it has no effect. Default: first come, first served.
    #[must_use]
    pub fn fair_by<F>(self, caller: F) -> ConcurrencyLayer<Fair<P, F>, C> {
        ConcurrencyLayer {
            limit: self.limit,
            priority: Fair::new(self.priority, caller),
            classify: self.classify,
        }
    }

    /// Says what a result tells of the peer: the latency of a success counts, an overload shrinks the limit, and so does
    /// a failure that took longer than an answer usually does. Default [`ErrorsFail`].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> ConcurrencyLayer<P, D> {
        ConcurrencyLayer {
            limit: self.limit,
            priority: self.priority,
            classify,
        }
    }
}

impl<S, P: Clone, C: Clone> Layer<S> for ConcurrencyLayer<P, C> {
    type Service = ConcurrencyService<S, P, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyService {
            inner,
            limit: self.limit.clone(),
            priority: self.priority.clone(),
            classify: self.classify.clone(),
        }
    }
}
