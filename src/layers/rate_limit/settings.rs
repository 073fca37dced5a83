use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::line::Denied;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// What a handle, its clones and its layers share until one of them is given another.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: Arc<str>,
    pub(super) longest: Longest,
    pub(super) observer: Observer,
}

/// How long callers may wait, in nanoseconds: up to 584 years, which is as good as any.
#[derive(Debug, Default)]
pub(super) struct Longest(AtomicU64);

impl Longest {
    pub(super) fn set(&self, longest: Duration) {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        // Nothing else is told by it.
        self.0.store(nanos, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Clone for Longest {
    fn clone(&self) -> Self {
        Self(self.0.load(Ordering::Relaxed).into())
    }
}

impl Settings {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            longest: Longest::default(),
            observer: Observer::default(),
        }
    }

    pub(super) fn refused(&self, cost: u32, denied: Denied) -> Rejected {
        let rejected = |reason| Rejected::new("rate limit", reason).named(Arc::clone(&self.name));
        self.observer.refused(match denied {
            Denied::For(wait) => rejected(Reason::RateLimited).retry_after(wait),
            Denied::Never { burst } => rejected(Reason::CostAboveBurst { cost, burst }),
        })
    }
}
