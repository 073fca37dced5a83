use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

use super::{By, Fixed, Timeout};
use crate::clock::Timer;
use crate::observe::{Observer, Who};

/// Gives up a call after a limit.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<L = Fixed> {
    pub(super) limit: Duration,
    pub(super) limits: L,
    pub(super) covers_readiness: bool,
    pub(super) who: Who,
}

impl TimeoutLayer {
    /// Gives up a call `limit` after it began.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            limits: Fixed,
            covers_readiness: false,
            who: Who::default(),
        }
    }
}

impl<L> TimeoutLayer<L> {
    /// Lets a request say its own limit, shorter or longer; where `limit` gives `None`, the layer's holds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use buttress::layers::timeout::TimeoutLayer;
    ///
    /// struct Report {
    ///     days: u32,
    /// }
    ///
    /// let layer = TimeoutLayer::new(Duration::from_millis(300))
    ///     .by(|report: &Report| (report.days > 30).then_some(Duration::from_secs(5)));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn by<Req, F>(self, limit: F) -> TimeoutLayer<By<F>>
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        TimeoutLayer {
            limit: self.limit,
            limits: By(limit),
            covers_readiness: self.covers_readiness,
            who: self.who,
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
    ///
    /// One waits for readiness before there is a request, so it is the layer's limit that bounds the wait, whatever a
    /// request says [by](Self::by) itself. Its own limit then counts from the beginning of the wait, and it is refused
    /// if that is over.
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

impl<S, L: Clone> Layer<S> for TimeoutLayer<L> {
    type Service = Timeout<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Timer::prepare();
        Timeout::new(inner, self.clone())
    }
}
