//! The last value of each key, bounded in number, in weight and in age.
//!
//! What was put in longest ago goes first: it is worth least, and its age would be the first to pass the bound. Looking
//! a value up does not keep it. Each step takes the same time however much there is.
//!
//! ```
//! use std::time::Duration;
//! use buttress::algo::cache::{Bounds, Cache};
//!
//! # let now = buttress::clock::now();
//! let bounds = Bounds { keys: 2, weight: u64::MAX, age: Duration::from_secs(60) };
//! let mut cache = Cache::new(bounds);
//! for key in ["a", "b", "c"] {
//!     cache.put(key, key.len(), 1, now);
//! }
//! assert_eq!(cache.get(&"a", now), None);
//! assert_eq!(cache.get(&"c", now + Duration::from_secs(9)), Some((&1, Duration::from_secs(9))));
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::{Duration, Instant};

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most keys.
    pub keys: usize,
    /// The most that all values weigh together.
    pub weight: u64,
    /// The oldest that a value may be.
    pub age: Duration,
}

/// Values by key, within [`Bounds`].
#[derive(Debug)]
pub struct Cache<K, V> {
    bounds: Bounds,
    places: HashMap<K, usize>,
    /// Dense, and linked in the order in which they were put in.
    entries: Vec<Entry<K, V>>,
    oldest: usize,
    newest: usize,
    weight: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    weight: u64,
    since: Instant,
    older: usize,
    newer: usize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            places: HashMap::new(),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
            weight: 0,
        }
    }

    /// The value of `key` and its age, unless it is too old.
    pub fn get(&self, key: &K, now: Instant) -> Option<(&V, Duration)> {
        let entry = &self.entries[*self.places.get(key)?];
        let age = now.saturating_duration_since(entry.since);
        (age <= self.bounds.age).then_some((&entry.value, age))
    }

    /// Makes `value` that of `key`, and what is in the way of it goes. Returns what was there, or `value` itself if it
    /// alone is heavier than all may be.
    pub fn put(&mut self, key: K, value: V, weight: u64, now: Instant) -> Option<V> {
        if !self.could_hold(weight) {
            return Some(value);
        }
        while self.make_room(&key, weight, now).is_some() {}
        if let Some(known) = self.renew(&key, weight, now) {
            return Some(mem::replace(known, value));
        }
        let place = self.entries.len();
        self.places.insert(key.clone(), place);
        self.entries.push(Entry {
            key,
            value,
            weight,
            since: now,
            older: NONE,
            newer: NONE,
        });
        self.weight += weight;
        self.append(place);
        None
    }

    /// Takes out one value that is too old or in the way of one of `weight` for `key`; `None` once there is room.
    pub fn make_room(&mut self, key: &K, weight: u64, now: Instant) -> Option<V> {
        let oldest = self.entries.get(self.oldest)?;
        let known = self.places.get(key);
        let own = known.map_or(0, |place| self.entries[*place].weight);
        let is_old = now.saturating_duration_since(oldest.since) > self.bounds.age;
        let is_full = known.is_none() && self.entries.len() >= self.bounds.keys;
        let others = self.weight - own;
        let is_heavy = self.could_hold(weight) && others > self.bounds.weight - weight;
        (is_old || is_full || is_heavy).then(|| self.take(self.oldest))
    }

    /// The value of `key`, to be replaced by one of `weight` for which there is [room](Self::make_room).
    pub fn renew(&mut self, key: &K, weight: u64, now: Instant) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        let Entry { older, newer, .. } = self.entries[place];
        self.join(older, newer);
        self.append(place);
        let entry = &mut self.entries[place];
        self.weight = self.weight - entry.weight + weight;
        entry.weight = weight;
        entry.since = now;
        Some(&mut entry.value)
    }

    /// Takes out the value of `key`, however old it is.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = *self.places.get(key)?;
        Some(self.take(place))
    }

    /// Whether so much weight is within the bounds.
    pub fn could_hold(&self, weight: u64) -> bool {
        weight <= self.bounds.weight
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What all values weigh together.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    fn take(&mut self, place: usize) -> V {
        let Entry { older, newer, .. } = self.entries[place];
        self.join(older, newer);
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.key);
        self.weight -= gone.weight;
        // The last entry stands in its place now.
        if let Some(moved) = self.entries.get(place) {
            let (older, newer) = (moved.older, moved.newer);
            if let Some(known) = self.places.get_mut(&moved.key) {
                *known = place;
            }
            self.join(older, place);
            self.join(place, newer);
        }
        gone.value
    }

    fn append(&mut self, place: usize) {
        self.join(self.newest, place);
        self.join(place, NONE);
    }

    /// Makes these neighbours. Beside [`NONE`] is the end.
    fn join(&mut self, older: usize, newer: usize) {
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

const NONE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn keeps(keys: usize, weight: u64) -> Cache<u8, u32> {
        Cache::new(Bounds {
            keys,
            weight,
            age: second(10),
        })
    }

    #[test]
    fn a_value_is_known_to_the_end_of_its_age_and_not_after() {
        let now = crate::clock::now();
        let mut cache = keeps(2, u64::MAX);
        cache.put(1, 10, 0, now);
        assert_eq!(cache.get(&1, now + second(10)), Some((&10, second(10))));
        let late = now + second(10) + Duration::from_nanos(1);
        assert_eq!(cache.get(&1, late), None);
        // Renewed it is as young as a new one.
        assert_eq!(cache.put(1, 11, 0, now + second(9)), Some(10));
        assert_eq!(cache.get(&1, late).map(|(value, _)| *value), Some(11));
    }

    #[test]
    fn a_value_that_is_too_heavy_is_handed_back_and_what_is_there_stays() {
        let now = crate::clock::now();
        let mut cache = keeps(9, 100);
        cache.put(1, 10, 60, now);
        assert_eq!(cache.put(1, 11, 101, now), Some(11));
        assert_eq!(cache.put(2, 20, u64::MAX, now), Some(20));
        assert_eq!(cache.get(&1, now), Some((&10, Duration::ZERO)));
        assert_eq!((cache.len(), cache.weight()), (1, 60));
    }

    #[test]
    fn a_heavier_value_under_a_known_key_needs_room_for_the_difference_alone() {
        let now = crate::clock::now();
        let mut cache = keeps(9, 100);
        cache.put(1, 10, 50, now);
        cache.put(2, 20, 50, now);
        assert_eq!(cache.put(2, 21, 50, now), Some(20));
        assert_eq!(cache.len(), 2);
        cache.put(2, 22, 51, now);
        assert_eq!((cache.len(), cache.weight()), (1, 51));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u64),
        Remove(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..12_u8, 0..40_u64).prop_map(|(key, weight)| Step::Put(key, weight)),
            1 => (0..12_u8).prop_map(Step::Remove),
            2 => (0..6_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The model is a list, the oldest first.
        #[test]
        fn it_keeps_what_a_list_of_all_that_was_put_in_says(
            keys in 1..6_usize,
            most in 0..100_u64,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut now = crate::clock::now();
            let mut cache = keeps(keys, most);
            let mut list: Vec<(u8, u32, u64, Instant)> = Vec::new();
            for (step, value) in steps.into_iter().zip(0..) {
                match step {
                    Step::Wait(seconds) => now += second(seconds),
                    Step::Remove(key) => {
                        let place = list.iter().position(|it| it.0 == key);
                        let wanted = place.map(|place| list.remove(place).1);
                        prop_assert_eq!(cache.remove(&key), wanted);
                    }
                    Step::Put(key, weight) => {
                        cache.put(key, value, weight, now);
                        if weight <= most {
                            list.retain(|it| now - it.3 <= second(10));
                            let known = |list: &[(u8, _, _, _)]| list.iter().any(|it| it.0 == key);
                            let others = |list: &[(u8, u32, u64, Instant)]| -> u64 {
                                list.iter().filter(|it| it.0 != key).map(|it| it.2).sum()
                            };
                            while others(&list) + weight > most || !known(&list) && list.len() >= keys {
                                list.remove(0);
                            }
                            list.retain(|it| it.0 != key);
                            list.push((key, value, weight, now));
                        }
                    }
                }
                prop_assert!(cache.len() <= keys && cache.weight() <= most);
                prop_assert_eq!(cache.len(), list.len());
                prop_assert_eq!(cache.weight(), list.iter().map(|it| it.2).sum::<u64>());
                for key in 0..12 {
                    let known = list.iter().find(|it| it.0 == key && now - it.3 <= second(10));
                    let got = cache.get(&key, now).map(|(value, age)| (*value, age));
                    prop_assert_eq!(got, known.map(|it| (it.1, now - it.3)));
                }
            }
        }
    }
}
