use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

use super::Timeout;
use super::who::Who;
use crate::observe::Observer;

/// Gives up a call after a limit.
#[derive(Clone, Debug)]
pub struct TimeoutLayer {
    pub(super) limit: Duration,
    pub(super) covers_readiness: bool,
    pub(super) who: Who,
}

impl TimeoutLayer {
    /// Gives up a call `limit` after it began.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            covers_readiness: false,
            who: Who::default(),
        }
    }

    /// Says whose calls these are, in refusals and to the observer. By default they have no name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.who.change().name = Some(name.into());
        self
    }

    /// Says that these are attempts, and which instance of the service they are for, by its id.
    pub(crate) fn instance(mut self, id: impl Into<Arc<str>>) -> Self {
        self.who.change().instance = Some(id.into());
        self
    }

    /// Starts the clock of a call when its caller first asks whether the service is ready, so that waiting for
    /// readiness is bounded too: the call has what the wait left of the limit. Off by default, as tower's own
    /// `Timeout` has it.
    ///
    /// Past the limit `poll_ready` lets the caller through, and its call is refused. The wait is that of one service
    /// value: concurrent callers each need a clone.
    #[must_use]
    pub fn cover_readiness(mut self) -> Self {
        self.covers_readiness = true;
        self
    }

    /// Tells `observer` of each call given up.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.who.change().observer = observer.into();
        self
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.clone())
    }
}
