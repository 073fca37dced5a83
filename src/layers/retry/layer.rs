use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

use super::{Retry, RetryErrors};
use crate::algo::backoff::Backoff;
use crate::budget::RetryBudget;
use crate::observe::Observer;

/// Tries failed calls again.
#[derive(Clone, Debug)]
pub struct RetryLayer<R = RetryErrors> {
    pub(super) attempts: u32,
    pub(super) rules: R,
    pub(super) backoff: Backoff,
    pub(super) longest_hint: Duration,
    pub(super) budget: Option<RetryBudget>,
    pub(super) name: Arc<str>,
    pub(super) observer: Observer,
}

impl RetryLayer {
    /// Makes up to `attempts` attempts, the first included, under the default [`RetryErrors`] rules.
    ///
    /// # Panics
    ///
    /// If `attempts` is 0.
    #[track_caller]
    pub fn new(attempts: u32) -> Self {
        assert!(
            attempts > 0,
            "attempts(0): a call needs at least one attempt"
        );
        Self {
            attempts,
            rules: RetryErrors,
            backoff: Backoff::default(),
            longest_hint: LONGEST_HINT,
            budget: Some(RetryBudget::default()),
            name: Arc::from("retry"),
            observer: Observer::default(),
        }
    }
}

impl<R> RetryLayer<R> {
    /// Decides by `rules` what is tried again: a closure or [`Rules`](super::Rules) of your own. The default is
    /// [`RetryErrors`].
    #[must_use]
    pub fn rules<R2>(self, rules: R2) -> RetryLayer<R2> {
        RetryLayer {
            attempts: self.attempts,
            rules,
            backoff: self.backoff,
            longest_hint: self.longest_hint,
            budget: self.budget,
            name: self.name,
            observer: self.observer,
        }
    }

    /// Waits so long between attempts. The default is [`Backoff::default`]: 100 ms, doubled each time up to 10 s, with
    /// full jitter.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Gives up at once where the peer asks to be left alone for longer than this, so that its hint cannot park the
    /// caller. The default is 10 s, the longest that the default backoff waits as well.
    #[must_use]
    pub fn longest_hint(mut self, limit: Duration) -> Self {
        self.longest_hint = limit;
        self
    }

    /// Takes retries out of this budget instead of the layer's own; with `None` only the attempts bound them.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// Says whose retries these are, to the observer. The default is `retry`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Tells `observer` of each retry, and of each that the budget did not allow.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }
}

/// Three attempts: a peer that failed three times in a row is not about to recover.
impl Default for RetryLayer {
    fn default() -> Self {
        Self::new(3)
    }
}

impl<S: Clone, R: Clone> Layer<S> for RetryLayer<R> {
    type Service = Retry<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.clone())
    }
}

const LONGEST_HINT: Duration = Duration::from_secs(10);
