use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::line::Line;
use crate::algo::gcra::Limit;
use crate::clock;
use crate::keyed::{self, Keep, Stay};

/// One line for all calls, or one for each key.
#[derive(Debug)]
pub(super) enum Lines<K> {
    One(Line),
    Keyed(Keyed<K>),
}

impl<K: Hash + Eq> Lines<K> {
    pub(super) fn line(&self, key: K) -> Line {
        match self {
            Self::One(line) => line.clone(),
            Self::Keyed(keyed) => keyed.line(key),
        }
    }

    pub(super) fn reconfigure(&self, limit: Limit) {
        if let Self::Keyed(keyed) = self {
            *keyed.limit() = limit;
        }
        self.each(|line| line.reconfigure(limit));
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Keyed(keyed) => keyed.lines.len(),
        }
    }

    pub(super) fn each(&self, mut step: impl FnMut(&Line)) {
        match self {
            Self::One(line) => step(line),
            Self::Keyed(keyed) => keyed.lines.each(|_, line| step(line)),
        }
    }
}

/// A line for each key.
#[derive(Debug)]
pub(super) struct Keyed<K> {
    /// What a new key gets. Changed before the lines are, so that none is missed.
    limit: Mutex<Limit>,
    lines: keyed::Keyed<K, Line>,
}

impl<K: Hash + Eq> Keyed<K> {
    pub(super) fn new(limit: Limit, most: usize) -> Self {
        Self {
            limit: Mutex::new(limit),
            lines: keyed::Keyed::new(most),
        }
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, key: K) -> Line {
        let known = self.lines.find(&key, Line::clone);
        known.unwrap_or_else(|| {
            let new = || Line::new(*self.limit(), clock::now());
            self.lines.find_or_insert(key, new, Line::clone)
        })
    }
}

/// What is idle is as if it were new, so that to forget it loses nothing. If there are too many that are not, those go
/// that would be first: whoever makes keys up loses those, and the one that asks for too much keeps its debt.
impl Keep for Line {
    type Worth = Duration;

    fn stay(&self) -> Stay<Duration> {
        if self.is_held() {
            return Stay::Held;
        }
        match self.busy_for() {
            Duration::ZERO => Stay::Idle,
            busy => Stay::Worth(busy),
        }
    }
}
