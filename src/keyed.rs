//! State by key, bounded: what is idle is forgotten, and in need what is worth least.
//!
//! A known key is found without a lock. Each shard publishes its map as a snapshot that is never changed; the newest
//! keys are in the map behind the lock alone, until they were missed in the snapshot so often that copying it is worth
//! it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

mod family;
mod used;

pub(crate) use family::{Family, Member, Rule};
pub(crate) use used::Used;

/// Values by key, in shards so that new keys seldom meet.
///
/// A value that is found at the very moment it is forgotten is used once more, and that is forgotten with it.
pub(crate) struct Keyed<K: ?Sized, V> {
    shards: Box<[Shard<K, V>]>,
    most_in_shard: usize,
    hasher: RandomState,
}

/// What decides how long a value stays.
pub(crate) trait Keep {
    /// Where there are too many, those of least worth are forgotten.
    type Worth: Ord;

    /// Asked under a lock.
    fn stay(&self) -> Stay<Self::Worth>;

    /// Told outside of all locks, once it was forgotten.
    fn forgotten(&self) {}
}

/// How long a value stays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stay<W> {
    /// It is forgotten at the next occasion.
    Idle,
    /// It stays while there is room.
    Worth(W),
    /// It stays, if need be beyond the bound.
    Held,
}

type Map<K, V> = HashMap<Arc<K>, Arc<V>>;

struct Shard<K: ?Sized, V> {
    /// Has no value that was forgotten, but may lack the newest.
    known: ArcSwap<Map<K, V>>,
    all: Mutex<All<K, V>>,
}

struct All<K: ?Sized, V> {
    map: Map<K, V>,
    /// How often a key was found here and not in the snapshot.
    missed: usize,
    sweep_at: usize,
}

impl<K, V> Keyed<K, V>
where
    K: Hash + Eq + ?Sized,
    V: Keep,
{
    /// Of at most `most` values, and those that are held.
    pub(crate) fn new(most: usize) -> Self {
        let shards = (most / LEAST_IN_SHARD).clamp(1, MOST_SHARDS);
        let shard = || Shard {
            known: ArcSwap::default(),
            all: Mutex::new(All {
                map: HashMap::new(),
                missed: 0,
                sweep_at: FIRST_SWEEP,
            }),
        };
        Self {
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            most_in_shard: most / shards,
            hasher: RandomState::new(),
        }
    }

    /// What `look` sees in the value of `key`, if there is one.
    #[inline]
    pub(crate) fn find<T>(&self, key: &K, look: impl FnOnce(&V) -> T) -> Option<T> {
        let shard = self.shard(key);
        if let Some(value) = shard.known.load().get(key) {
            return Some(look(value));
        }
        shard.find_new(key).map(|value| look(&value))
    }

    /// As [`find`](Self::find); a key without a value gets a `new` one, made under the lock. It is looked at outside.
    pub(crate) fn find_or_insert<Q, T>(
        &self,
        key: Q,
        new: impl FnOnce() -> V,
        look: impl FnOnce(&V) -> T,
    ) -> T
    where
        Q: Borrow<K> + Into<Arc<K>>,
    {
        let shard = self.shard(key.borrow());
        let mut all = shard.lock();
        let value = match all.map.get(key.borrow()) {
            Some(value) => {
                let value = Arc::clone(value);
                drop(all);
                value
            }
            None => {
                let full = all.map.len() >= all.sweep_at.min(self.most_in_shard);
                let gone = full.then(|| shard.sweep(&mut all, self.most_in_shard));
                let value = Arc::new(new());
                all.map.insert(key.into(), Arc::clone(&value));
                let old = shard.publish_if_worth_it(&mut all);
                drop(all);
                drop((gone, old));
                value
            }
        };
        look(&value)
    }

    /// Forgets what is idle.
    pub(crate) fn sweep(&self) {
        for shard in &self.shards {
            let mut all = shard.lock();
            let gone = shard.sweep(&mut all, usize::MAX);
            drop(all);
            drop(gone);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().map.len()).sum()
    }

    /// Each value that is there, outside of the lock.
    pub(crate) fn each(&self, mut look: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            let pairs = |(key, value): (&Arc<K>, &Arc<V>)| (Arc::clone(key), Arc::clone(value));
            let all: Vec<_> = shard.lock().map.iter().map(pairs).collect();
            all.iter().for_each(|(key, value)| look(key, value));
        }
    }

    #[inline]
    fn shard(&self, key: &K) -> &Shard<K, V> {
        match &*self.shards {
            [only] => only,
            shards => &shards[self.hasher.hash_one(key) as usize % shards.len()],
        }
    }
}

impl<K, V> Shard<K, V>
where
    K: Hash + Eq + ?Sized,
    V: Keep,
{
    #[cold]
    fn find_new(&self, key: &K) -> Option<Arc<V>> {
        let mut all = self.lock();
        let value = Arc::clone(all.map.get(key)?);
        all.missed += 1;
        let old = self.publish_if_worth_it(&mut all);
        drop(all);
        drop(old);
        Some(value)
    }

    /// Forgets what is idle, and if there are `most` left, some of those that are worth least. What is returned is
    /// dropped outside of the lock.
    fn sweep(&self, all: &mut All<K, V>, most: usize) -> Forgotten<K, V> {
        let mut gone = all.take(|value| value.stay() == Stay::Idle);
        if all.map.len() >= most {
            let worth = |value: &Arc<V>| match value.stay() {
                Stay::Worth(worth) => Some(worth),
                Stay::Idle | Stay::Held => None,
            };
            let mut worths: Vec<_> = all.map.values().filter_map(worth).collect();
            // An eighth at a time, so that not every new key has to look through all of them.
            let surplus = (most / 8).max(1).min(worths.len());
            if surplus > 0 {
                let (lesser, bound, _) = worths.select_nth_unstable(surplus - 1);
                let mut equal = 1 + lesser.iter().filter(|it| *it == bound).count();
                gone.extend(
                    all.take(|value| match worth(value).map(|worth| worth.cmp(bound)) {
                        Some(Ordering::Less) => true,
                        Some(Ordering::Equal) if equal > 0 => {
                            equal -= 1;
                            true
                        }
                        _ => false,
                    }),
                );
            }
        }
        all.sweep_at = (2 * all.map.len()).max(FIRST_SWEEP);
        let snapshot = (!gone.is_empty()).then(|| self.publish(all));
        Forgotten { gone, snapshot }
    }

    fn publish_if_worth_it(&self, all: &mut All<K, V>) -> Option<Arc<Map<K, V>>> {
        (all.missed >= all.map.len() / MISSES).then(|| self.publish(all))
    }

    /// Returns the last snapshot, to be dropped outside of the lock.
    fn publish(&self, all: &mut All<K, V>) -> Arc<Map<K, V>> {
        all.missed = 0;
        self.known.swap(Arc::new(all.map.clone()))
    }
}

impl<K: ?Sized, V> Shard<K, V> {
    fn lock(&self) -> MutexGuard<'_, All<K, V>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + ?Sized, V> All<K, V> {
    fn take(&mut self, mut goes: impl FnMut(&Arc<V>) -> bool) -> Vec<(Arc<K>, Arc<V>)> {
        let mut gone = Vec::new();
        self.map.retain(|key, value| {
            let goes = goes(value);
            if goes {
                gone.push((Arc::clone(key), Arc::clone(value)));
            }
            !goes
        });
        gone
    }
}

/// Keys and values are foreign code in their `drop`.
struct Forgotten<K: ?Sized, V: Keep> {
    gone: Vec<(Arc<K>, Arc<V>)>,
    #[expect(dead_code, reason = "to be dropped")]
    snapshot: Option<Arc<Map<K, V>>>,
}

impl<K: ?Sized, V: Keep> Drop for Forgotten<K, V> {
    fn drop(&mut self) {
        self.gone.iter().for_each(|(_, value)| value.forgotten());
    }
}

impl<K: ?Sized, V> fmt::Debug for Keyed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").finish_non_exhaustive()
    }
}

const LEAST_IN_SHARD: usize = 256;
const MOST_SHARDS: usize = 16;
const FIRST_SWEEP: usize = 64;

/// A copy of the map is paid for by one miss for so many of its values.
const MISSES: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Its number, and how long it stays: idle, held, or its worth.
    struct Value(usize, AtomicU32, Arc<AtomicUsize>);

    const IDLE: u32 = 0;
    const HELD: u32 = u32::MAX;

    impl Keep for Value {
        type Worth = u32;

        fn stay(&self) -> Stay<u32> {
            match self.1.load(Ordering::Relaxed) {
                IDLE => Stay::Idle,
                HELD => Stay::Held,
                worth => Stay::Worth(worth),
            }
        }

        fn forgotten(&self) {
            self.2.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A list of keys, numbers of values, and how long they stay.
    #[derive(Default)]
    struct Model {
        all: Vec<(u8, usize, u32)>,
        forgotten: usize,
        sweep_at: usize,
    }

    impl Model {
        fn sweep(&mut self, most: usize) {
            let before = self.all.len();
            self.all.retain(|(_, _, stay)| *stay != IDLE);
            if self.all.len() >= most {
                self.all.sort_by_key(|(_, _, stay)| *stay);
                let may_go = self.all.iter().filter(|it| it.2 != HELD).count();
                self.all.drain(..(most / 8).max(1).min(may_go));
            }
            self.forgotten += before - self.all.len();
            self.sweep_at = (2 * self.all.len()).max(FIRST_SWEEP);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Sweep,
        Set(u8, u32),
        Insert(u8, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let stay = prop_oneof![1 => Just(IDLE), 1 => Just(HELD), 6 => 1..1000_u32];
        let step = (0_u32..20, any::<u8>(), stay).prop_map(|(kind, key, stay)| match kind {
            0 => Step::Sweep,
            1..8 => Step::Set(key, stay),
            _ => Step::Insert(key, stay),
        });
        prop::collection::vec(step, 0..500)
    }

    proptest! {
        #[test]
        fn what_is_forgotten_is_idle_or_worth_least_and_never_held(
            most in 1_usize..120,
            steps in steps(),
        ) {
            let forgotten = Arc::default();
            let keyed = Keyed::<u8, Value>::new(most);
            let mut model = Model { sweep_at: FIRST_SWEEP, ..Model::default() };
            for (n, step) in steps.into_iter().enumerate() {
                // Where two were worth the same, either might go.
                let apart = |stay| match stay {
                    IDLE | HELD => stay,
                    worth => worth * 1000 + n as u32,
                };
                match step {
                    Step::Sweep => {
                        keyed.sweep();
                        model.sweep(usize::MAX);
                    }
                    Step::Set(key, stay) => {
                        let set = |it: &Value| it.1.store(apart(stay), Ordering::Relaxed);
                        let found = keyed.find(&key, set).is_some();
                        let known = model.all.iter_mut().find(|it| it.0 == key);
                        prop_assert_eq!(found, known.is_some());
                        if let Some(known) = known {
                            known.2 = apart(stay);
                        }
                    }
                    Step::Insert(key, stay) => {
                        let new = || Value(n, apart(stay).into(), Arc::clone(&forgotten));
                        let got = keyed.find_or_insert(key, new, |it| it.0);
                        if !model.all.iter().any(|it| it.0 == key) {
                            if model.all.len() >= model.sweep_at.min(most) {
                                model.sweep(most);
                            }
                            model.all.push((key, n, apart(stay)));
                        }
                        prop_assert!(model.all.iter().any(|it| (it.0, it.1) == (key, got)));
                    }
                }
                let mut kept = Vec::new();
                keyed.each(|key, it| kept.push((*key, it.0)));
                kept.sort_unstable();
                let mut wanted: Vec<_> = model.all.iter().map(|it| (it.0, it.1)).collect();
                wanted.sort_unstable();
                prop_assert_eq!(keyed.len(), wanted.len());
                prop_assert_eq!(kept, wanted);
                prop_assert_eq!(forgotten.load(Ordering::Relaxed), model.forgotten);
            }
        }
    }

    #[test]
    fn values_of_the_same_worth_make_no_more_room_than_is_needed() {
        let keyed = Keyed::<usize, Value>::new(200);
        for key in 0..201 {
            let stays_like_all = || Value(key, 7.into(), Arc::default());
            keyed.find_or_insert(key, stays_like_all, |_| ());
        }
        assert_eq!(keyed.len(), 200 - 200 / 8 + 1);
    }

    #[test]
    fn what_looks_at_a_value_may_ask_for_others() {
        let keyed = Keyed::<usize, Value>::new(1);
        let new = || Value(7, HELD.into(), Arc::default());
        for _ in 0..2 {
            assert_eq!(keyed.find_or_insert(7, new, |_| keyed.len()), 1);
        }
    }

    #[test]
    fn threads_that_meet_at_a_key_find_one_value() {
        let keyed = Keyed::<usize, Value>::new(1000);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for key in (0..100).cycle().take(2000) {
                        let new = || {
                            made.fetch_add(1, Ordering::Relaxed);
                            Value(key, HELD.into(), Arc::default())
                        };
                        let found = keyed.find(&key, |it| it.0);
                        let found =
                            found.unwrap_or_else(|| keyed.find_or_insert(key, new, |it| it.0));
                        assert_eq!(found, key);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 100);
    }
}
