use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::line::Line;
use crate::algo::gcra::Limit;
use crate::clock;

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
            *lock(&keyed.limit) = limit;
        }
        self.each(|line| line.reconfigure(limit));
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Keyed(keyed) => keyed.shards.iter().map(|it| lock(it).lines.len()).sum(),
        }
    }

    pub(super) fn each(&self, mut step: impl FnMut(&Line)) {
        match self {
            Self::One(line) => step(line),
            Self::Keyed(keyed) => {
                for shard in &keyed.shards {
                    // Outside of the shard's lock: a step may wake.
                    let lines: Vec<_> = lock(shard).lines.values().cloned().collect();
                    lines.iter().for_each(&mut step);
                }
            }
        }
    }
}

/// Lines by key, in shards so that calls of different keys seldom meet.
#[derive(Debug)]
pub(super) struct Keyed<K> {
    /// What a new key gets. Changed before the lines are, so that none is missed.
    limit: Mutex<Limit>,
    shards: Box<[Mutex<Shard<K>>]>,
    most_in_shard: usize,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<K> {
    lines: HashMap<K, Line>,
    sweep_at: usize,
}

impl<K: Hash + Eq> Keyed<K> {
    pub(super) fn new(limit: Limit, most: usize) -> Self {
        let shards = (most / LEAST_IN_SHARD).clamp(1, MOST_SHARDS);
        let shard = || {
            Mutex::new(Shard {
                lines: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            })
        };
        Self {
            limit: Mutex::new(limit),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            most_in_shard: most / shards,
            hasher: RandomState::new(),
        }
    }

    fn line(&self, key: K) -> Line {
        let hash = self.hasher.hash_one(&key) as usize;
        let mut shard = lock(&self.shards[hash % self.shards.len()]);
        if let Some(line) = shard.lines.get(&key) {
            return line.clone();
        }
        if shard.lines.len() >= shard.sweep_at.min(self.most_in_shard) {
            shard.sweep(self.most_in_shard);
        }
        let line = Line::new(*lock(&self.limit), clock::now());
        shard.lines.insert(key, line.clone());
        line
    }
}

impl<K: Hash + Eq> Shard<K> {
    /// Drops the idle keys, which loses nothing. If there are too many that are not, those that would be first go too:
    /// whoever makes keys up loses those, and the one that asks for too much keeps its debt.
    fn sweep(&mut self, most: usize) {
        self.lines
            .retain(|_, line| line.is_held() || !line.busy_for().is_zero());
        if self.lines.len() >= most {
            let free = self.lines.values().filter(|line| !line.is_held());
            let mut busy: Vec<_> = free.map(Line::busy_for).collect();
            // An eighth at a time, so that not every new key has to look through all of them.
            let mut surplus = (most / 8).max(1).min(busy.len());
            if surplus > 0 {
                let (_, &mut longest, _) = busy.select_nth_unstable(surplus - 1);
                self.lines.retain(|_, line| {
                    let goes = surplus > 0 && !line.is_held() && line.busy_for() <= longest;
                    surplus -= usize::from(goes);
                    !goes
                });
            }
        }
        self.sweep_at = (2 * self.lines.len()).max(FIRST_SWEEP);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LEAST_IN_SHARD: usize = 256;
const MOST_SHARDS: usize = 16;
const FIRST_SWEEP: usize = 64;
