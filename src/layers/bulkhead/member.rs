use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Bulkhead, Settings};
use crate::clock;
use crate::keyed::{self, Keep, Stay, Used};

/// A bulkhead of a family.
pub(super) struct Member {
    bulkhead: Bulkhead,
    /// What the family would have it go by.
    settings: Mutex<Settings>,
    used: Used,
    idle: Duration,
}

impl Member {
    pub(super) fn new(bulkhead: Bulkhead, idle: Duration, now: Instant) -> Self {
        Self {
            settings: Mutex::new(bulkhead.settings()),
            bulkhead,
            used: Used::new(now),
            idle,
        }
    }

    pub(super) fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The bulkhead, used at `now`.
    #[inline]
    pub(super) fn at(&self, now: Instant) -> &Bulkhead {
        self.used.note(now);
        &self.bulkhead
    }

    /// Whether somebody has it go by something else.
    fn is_steered(&self) -> bool {
        let settings = self.settings.lock();
        *settings.unwrap_or_else(PoisonError::into_inner) != self.bulkhead.settings()
    }
}

impl keyed::Member for Member {
    type Settings = Settings;

    fn reconfigure(&self, settings: Settings) {
        let own = self.settings.lock();
        *own.unwrap_or_else(PoisonError::into_inner) = settings;
        self.bulkhead.reconfigure(settings);
    }
}

impl Keep for Member {
    /// When it was used.
    type Worth = Instant;

    fn stay(&self) -> Stay<Instant> {
        if self.bulkhead.is_held() || self.is_steered() {
            return Stay::Held;
        }
        let used = self.used.last();
        match clock::now().saturating_duration_since(used) >= self.idle {
            true => Stay::Idle,
            false => Stay::Worth(used),
        }
    }
}
