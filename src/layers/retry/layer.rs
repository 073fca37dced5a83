use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

use super::settings::Settings;
use super::{Retry, RetryErrors};
use crate::algo::backoff::Backoff;
use crate::budget::RetryBudget;
use crate::observe::Observer;

/// Tries failed calls again.
#[derive(Clone, Debug)]
pub struct RetryLayer<R = RetryErrors> {
    pub(crate) rules: R,
    pub(crate) settings: Settings,
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
            rules: RetryErrors,
            settings: Settings::new(attempts),
        }
    }
}

impl<R> RetryLayer<R> {
    /// Decides by `rules` what is tried again: a closure or [`Rules`](super::Rules) of your own. The default is
    /// [`RetryErrors`].
    #[must_use]
    pub fn rules<R2>(self, rules: R2) -> RetryLayer<R2> {
        RetryLayer {
            rules,
            settings: self.settings,
        }
    }

    /// Waits so long between attempts. The default is [`Backoff::default`]: 100 ms, doubled each time up to 10 s, with
    /// full jitter.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Begins no attempt once a call has taken so long. The default is no limit but the
    /// [`Deadline`](crate::Deadline), which rules in any case.
    ///
    /// A wait of the backoff is cut to what is left, so that the last attempt begins in time. What the peer asked for is
    /// not cut: where that is longer, there is no further attempt. An attempt under way is not ended: that is a
    /// timeout's.
    #[must_use]
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.settings.limit = Some(limit);
        self
    }

    /// Gives up at once where the peer asks to be left alone for longer than this, so that its hint cannot park the
    /// caller. The default is 10 s, the longest that the default backoff waits as well.
    #[must_use]
    pub fn longest_hint(mut self, limit: Duration) -> Self {
        self.settings.longest_hint = limit;
        self
    }

    /// Comes back later than the peer asked by up to this share of the wait that it named, drawn for each call: all whom
    /// it sends away are told the same time, and would come back together. The default is 0.2, and 0 is none. No call
    /// comes back sooner than asked.
    ///
    /// # Panics
    ///
    /// If `share` is not from 0 to 1.
    #[must_use]
    #[track_caller]
    pub fn hint_spread(mut self, share: f64) -> Self {
        assert!(
            (0.0..=1.0).contains(&share),
            "the spread of a hint must be from 0 to 1, not {share}"
        );
        self.settings.hint_spread = share;
        self
    }

    /// Takes retries out of this budget instead of the layer's own; with `None` only the attempts bound them.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.settings.account.budget = budget.into();
        self
    }

    /// Says whose retries these are, to the observer. The default is `retry`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.account.name = name.into();
        self
    }

    /// Tells `observer` of each retry, of each that the budget did not allow, and of each call that is given up though
    /// its result asked for another attempt; of the last attempt's result
    /// [`is_failure`](super::Rules::is_failure) says so.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.settings.account.observer = observer.into();
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
