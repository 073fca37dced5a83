use std::sync::Arc;
use std::time::Duration;

use super::line::Denied;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// What is a handle's own.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: Arc<str>,
    pub(super) longest: Duration,
    pub(super) observer: Observer,
}

impl Settings {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            longest: Duration::ZERO,
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
