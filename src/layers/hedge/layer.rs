use std::sync::Arc;

use tower::Layer;

use super::settings::Settings;
use super::{Cloned, Delay, Hedge, LiveQuantile};
use crate::budget::RetryBudget;
use crate::classify::ErrorsFail;
use crate::observe::Observer;

/// Sends slow requests again, before they have failed.
#[derive(Clone, Debug)]
pub struct HedgeLayer<C = Cloned, K = ErrorsFail> {
    pub(super) copy: C,
    pub(super) classify: K,
    pub(super) settings: Settings,
}

impl HedgeLayer {
    /// Sends a request again once its last attempt is under way for `delay`: a [`Duration`](std::time::Duration), or a
    /// [`LiveQuantile`]. All services of this layer and of its clones share the quantile.
    pub fn new(delay: impl Into<Delay>) -> Self {
        Self {
            copy: Cloned,
            classify: ErrorsFail,
            settings: Settings::new(delay.into()),
        }
    }
}

impl<C, K> HedgeLayer<C, K> {
    /// Makes up to `attempts` attempts, the first included. The default is 2: the second takes away most of what is
    /// slow by chance, and a third finds little left.
    ///
    /// # Panics
    ///
    /// If `attempts` is 0.
    #[must_use]
    #[track_caller]
    pub fn attempts(mut self, attempts: u32) -> Self {
        assert!(attempts > 0, "a call needs at least one attempt");
        self.settings.attempts = attempts;
        self
    }

    /// Sends again only the requests that `copy` copies: a closure or a [`CopyRequest`](super::CopyRequest) of your
    /// own. The default clones every request, so put it only around what may be sent twice.
    #[must_use]
    pub fn copy<C2>(self, copy: C2) -> HedgeLayer<C2, K> {
        HedgeLayer {
            copy,
            classify: self.classify,
            settings: self.settings,
        }
    }

    /// Says which results are failures, which do not win while another attempt is under way. The default is
    /// [`ErrorsFail`].
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> HedgeLayer<C, K2> {
        HedgeLayer {
            copy: self.copy,
            classify,
            settings: self.settings,
        }
    }

    /// Takes hedges out of this budget instead of the layer's own; with `None` only the attempts bound them.
    ///
    /// The default allows a twentieth of the calls or 1 a second, whichever is more: a twentieth is what lies above p95
    /// in quiet times, and where everything is slow, more calls make it slower.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.settings.account.budget = budget.into();
        self
    }

    /// Says whose hedges these are, to the observer. The default is `hedge`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.account.name = name.into();
        self
    }

    /// Tells `observer` of each hedge, of each that gave the answer, and of each that the budget did not allow.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.settings.account.observer = observer.into();
        self
    }
}

/// After the live p95.
impl Default for HedgeLayer {
    fn default() -> Self {
        Self::new(LiveQuantile::default())
    }
}

impl<S, C: Clone, K: Clone> Layer<S> for HedgeLayer<C, K> {
    type Service = Hedge<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(inner, self.clone())
    }
}
