use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::LimitOf;
use super::line::Line;
use crate::clock;
use crate::keyed::{self, Keep, Stay};

/// One line for all calls, or one for each key.
pub(super) enum Lines<K> {
    One(K, Line),
    Keyed(Keyed<K>),
}

pub(super) type Limits<K> = Arc<dyn LimitOf<K> + Send + Sync>;

impl<K: Hash + Eq> Lines<K> {
    pub(super) fn line(&self, key: K) -> Line {
        match self {
            Self::One(_, line) => line.clone(),
            Self::Keyed(keyed) => keyed.line(key),
        }
    }

    pub(super) fn find(&self, key: &K) -> Option<Line> {
        match self {
            Self::One(_, line) => Some(line.clone()),
            Self::Keyed(keyed) => keyed.lines.find(key, Line::clone),
        }
    }

    pub(super) fn reconfigure(&self, limits: Limits<K>) {
        match self {
            Self::One(key, line) => line.reconfigure(limits.limit_of(key), true),
            Self::Keyed(keyed) => {
                let old = std::mem::replace(&mut *keyed.lock(), limits);
                drop(old);
                keyed.lines.each(|key, line| keyed.refresh(key, line));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Keyed(keyed) => keyed.lines.len(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::One(_, line) => line.waiting(),
            Self::Keyed(keyed) => {
                let mut waiting = 0;
                keyed.lines.each(|_, line| waiting += line.waiting());
                waiting
            }
        }
    }
}

/// A line for each key.
pub(super) struct Keyed<K> {
    /// What a new key gets. Changed before the lines are, so that none is missed.
    limits: Mutex<Limits<K>>,
    lines: keyed::Keyed<K, Line>,
}

impl<K: Hash + Eq> Keyed<K> {
    pub(super) fn new(limits: Limits<K>, most: usize) -> Self {
        Self {
            limits: Mutex::new(limits),
            lines: keyed::Keyed::new(most),
        }
    }

    fn line(&self, key: K) -> Line {
        let known = self.lines.find(&key, Line::clone);
        known.unwrap_or_else(|| self.new_line(Arc::new(key)))
    }

    /// The limit of a key is foreign code and asked for outside of all locks, so it may be the last one by the time that
    /// the line is there.
    #[cold]
    fn new_line(&self, key: Arc<K>) -> Line {
        let limits = self.limits();
        let limit = limits.limit_of(&key);
        let new = || Line::new(limit, clock::now());
        let line = self
            .lines
            .find_or_insert(Arc::clone(&key), new, Line::clone);
        if !Arc::ptr_eq(&limits, &self.limits()) {
            self.refresh(&key, &line);
        }
        line
    }

    /// Gives a line the limit of its key: until it is the newest one, for it may change meanwhile.
    fn refresh(&self, key: &K, line: &Line) {
        loop {
            let limits = self.limits();
            line.reconfigure(limits.limit_of(key), false);
            if Arc::ptr_eq(&limits, &self.limits()) {
                return;
            }
        }
    }

    fn limits(&self) -> Limits<K> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Limits<K>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is idle is as if it were new, so that to forget it loses nothing. If there are too many that are not, those go
/// that would be first: whoever makes keys up loses those, and the one that asks for too much keeps its debt. One that
/// was given a limit by hand stays: nobody else knows of that.
impl Keep for Line {
    type Worth = Duration;

    fn stay(&self) -> Stay<Duration> {
        if self.is_held() || self.is_set_by_hand() {
            return Stay::Held;
        }
        match self.busy_for() {
            Duration::ZERO => Stay::Idle,
            busy => Stay::Worth(busy),
        }
    }
}
