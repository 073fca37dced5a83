use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::algo::cache::{Bounds, Cache};

/// Responses by key, in parts with locks of their own, so that calls of different keys seldom meet.
///
/// Under a lock nothing runs but the hash and the comparison of keys: copies are made and dropped outside.
pub(super) struct Shelves<K, Res> {
    shelves: Box<[Shelf<K, Res>]>,
    hasher: RandomState,
}

// Behind an `Arc`, so that a copy can be made of it outside of the lock.
type Shelf<K, Res> = Mutex<Cache<K, Arc<Res>>>;

impl<K: Hash + Eq + Clone, Res> Shelves<K, Res> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let count = (bounds.keys / LEAST_ON_SHELF).clamp(1, MOST_SHELVES);
        let each = Bounds {
            keys: bounds.keys / count,
            weight: bounds.weight / count as u64,
            ..bounds
        };
        Self {
            shelves: (0..count).map(|_| Mutex::new(Cache::new(each))).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Where the response to `key` is, if it is known.
    pub(super) fn of(&self, key: &K) -> MutexGuard<'_, Cache<K, Arc<Res>>> {
        let place = match self.shelves.len() {
            1 => 0,
            count => self.hasher.hash_one(key) as usize % count,
        };
        lock(&self.shelves[place])
    }

    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Cache<K, Arc<Res>>>> {
        self.shelves.iter().map(lock)
    }

    /// Keeps a response. Under a key that is known it takes the place of the one before, and nothing is allocated.
    pub(super) fn put(&self, key: K, response: Res, weight: u64, now: Instant) {
        loop {
            let mut shelf = self.of(&key);
            if let Some(gone) = shelf.make_room(&key, weight, now) {
                drop(shelf);
                drop(gone);
                continue;
            }
            if !shelf.could_hold(weight) {
                return;
            }
            let Some(known) = shelf.renew(&key, weight, now) else {
                let before = shelf.put(key, Arc::new(response), weight, now);
                drop(shelf);
                drop(before);
                return;
            };
            let before = match Arc::get_mut(known) {
                Some(known) => Ok(mem::replace(known, response)),
                None => Err(mem::replace(known, Arc::new(response))),
            };
            drop(shelf);
            drop(before);
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LEAST_ON_SHELF: usize = 128;
const MOST_SHELVES: usize = 16;
