use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ThrottleLayer;
use crate::algo::throttle;
use crate::classify::{ErrorsFail, Outcome};
use crate::clock;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;
use crate::rng::ThreadRng;

/// Holds back calls by how many of them the peer accepts. Clones share what they counted.
#[derive(Clone)]
pub struct Throttle {
    counted: Arc<Mutex<throttle::Throttle>>,
    name: Arc<str>,
    observer: Observer,
}

impl Throttle {
    /// A throttle of these settings; the name is what refusals call it.
    pub fn new(name: impl Into<Arc<str>>, settings: throttle::Throttle) -> Self {
        Self {
            counted: Arc::new(Mutex::new(settings)),
            name: name.into(),
            observer: Observer::default(),
        }
    }

    /// Tells `observer` of each call held back.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// A layer that throttles calls. All its layers share what they counted. An error counts as not accepted; see
    /// [`classify`](ThrottleLayer::classify).
    pub fn layer(&self) -> ThrottleLayer<ErrorsFail> {
        ThrottleLayer::new(self.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The share of calls that is held back now, from 0 to 1.
    pub fn rejection_rate(&self) -> f64 {
        self.lock().rejection_rate(clock::now())
    }

    /// Goes by other settings from now on, and starts to count afresh.
    pub fn reconfigure(&self, settings: throttle::Throttle) {
        *self.lock() = settings;
    }

    pub(super) fn admit(&self) -> Result<Permit, Rejected> {
        if self.lock().holds_back(clock::now(), &mut ThreadRng) {
            let rejected = Rejected::new("throttle", Reason::Throttled);
            return Err(self.observer.refused(rejected.named(self.name.clone())));
        }
        Ok(Permit {
            throttle: self.clone(),
            outcome: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, throttle::Throttle> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One call. Dropped without an outcome it counts as not accepted: the caller did not wait for the answer.
#[derive(Debug)]
pub(super) struct Permit {
    throttle: Throttle,
    outcome: Option<Outcome>,
}

impl Permit {
    pub(super) fn record(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.outcome != Some(Outcome::Ignored) {
            let accepted = self.outcome == Some(Outcome::Success);
            self.throttle.lock().record(accepted, clock::now());
        }
    }
}
