use std::sync::{Mutex, PoisonError};

use super::RetryLayer;

/// What all clones of a service and their calls share.
#[derive(Debug)]
pub(crate) struct Shared<S, R> {
    pub(crate) policy: RetryLayer<R>,
    /// Never called: later attempts go to clones of it, so that a call that succeeds clones nothing.
    inner: Mutex<S>,
}

impl<S: Clone, R> Shared<S, R> {
    pub(super) fn new(policy: RetryLayer<R>, inner: S) -> Self {
        let inner = Mutex::new(inner);
        Self { policy, inner }
    }

    pub(super) fn inner(&self) -> S {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clone()
    }
}
