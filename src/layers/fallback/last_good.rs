use std::fmt;
use std::future::{Ready, ready};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::shelves::Shelves;
use super::{Answer, FallbackLayer};
use crate::algo::cache::Bounds;
use crate::clock;

/// Remembers the last good response to each key, and answers with it in place of a failed call (stale-if-error, as RFC
/// 5861 has it for HTTP).
///
/// Good is what the layer has no answer for: every response, unless [`FallbackLayer::when`] says otherwise. What is
/// remembered is a copy, made after the response came and before the caller gets it.
///
/// Clones share what they remember, and so do all services of its layers: have one for each peer. The bounds are to be
/// set before it is used, for with other bounds it starts afresh.
///
/// ```
/// use std::time::Duration;
/// use buttress::layers::fallback::LastGood;
///
/// struct Price { cents: u64, age: Duration }
///
/// let last = LastGood::with_copy(
///     |sku: &u64| Some(*sku),
///     |price: &Price| Some(Price { cents: price.cents, age: price.age }),
/// )
/// .max_age(Duration::from_secs(600))
/// .mark(|price, age| Price { age, ..price });
/// let layer = last.layer().name("prices");
/// ```
pub struct LastGood<Req, K, Res> {
    settings: Settings<Req, K, Res>,
    shelves: Arc<Shelves<K, Res>>,
}

struct Settings<Req, K, Res> {
    key: Arc<Key<Req, K>>,
    copy: Arc<Copy<Res>>,
    weigh: Option<Arc<Weigh<K, Res>>>,
    mark: Option<Arc<Mark<Res>>>,
    every: Duration,
    bounds: Bounds,
}

type Key<Req, K> = dyn Fn(&Req) -> Option<K> + Send + Sync;
type Copy<Res> = dyn Fn(&Res) -> Option<Res> + Send + Sync;
type Weigh<K, Res> = dyn Fn(&K, &Res) -> u64 + Send + Sync;
type Mark<Res> = dyn Fn(Res, Duration) -> Res + Send + Sync;

impl<Req, K, Res> LastGood<Req, K, Res>
where
    K: Hash + Eq + Clone,
{
    /// Remembers clones of responses by `key`.
    ///
    /// Calls of one key are answered alike, so the key holds all that the answer depends on, the caller's rights
    /// included. A call without one is neither remembered nor answered: writes have none. `key` runs for every call.
    pub fn new(key: impl Fn(&Req) -> Option<K> + Send + Sync + 'static) -> Self
    where
        Res: Clone,
    {
        Self::with_copy(key, |response: &Res| Some(response.clone()))
    }

    /// As [`new`](Self::new), for responses that are not `Clone`, or not all of which are to be remembered: `copy` makes
    /// the copy that is kept, and of that each copy that is given out. Where it makes none, the one before is kept.
    pub fn with_copy(
        key: impl Fn(&Req) -> Option<K> + Send + Sync + 'static,
        copy: impl Fn(&Res) -> Option<Res> + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings: Settings {
                key: Arc::new(key),
                copy: Arc::new(copy),
                weigh: None,
                mark: None,
                every: Duration::ZERO,
                bounds: BOUNDS,
            },
            shelves: Arc::new(Shelves::new(BOUNDS)),
        }
    }

    /// Never answers with a copy older than this. The default is five minutes: most deployments and restarts are over
    /// by then, and what is older than that few would call current.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        let bounds = self.settings.bounds;
        self.bound(Bounds { age, ..bounds })
    }

    /// Remembers responses to so many keys at most. The default is 1000. From 256 on they are kept in up to 16 parts, by
    /// chance, each with its share of the bounds, so that a part may be full a little before the whole is.
    ///
    /// The copy that was made longest ago goes first.
    ///
    /// # Panics
    ///
    /// If `keys` is 0.
    #[must_use]
    #[track_caller]
    pub fn max_keys(self, keys: usize) -> Self {
        assert!(keys > 0, "without a key nothing is remembered");
        let bounds = self.settings.bounds;
        self.bound(Bounds { keys, ..bounds })
    }

    /// Remembers no more than `weight` in all, in the unit in which `weigh` weighs a response and its key: bytes, for
    /// example. A response that is heavier than its part of the bound is not remembered. There is no such bound by
    /// default.
    #[must_use]
    pub fn max_weight(
        mut self,
        weight: u64,
        weigh: impl Fn(&K, &Res) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.settings.weigh = Some(Arc::new(weigh));
        let bounds = self.settings.bounds;
        self.bound(Bounds { weight, ..bounds })
    }

    /// Makes a copy for a key no more often than this, where copies are dear. The answer is up to so much older. By
    /// default each good response is copied.
    #[must_use]
    pub fn copy_every(mut self, every: Duration) -> Self {
        self.settings.every = every;
        self
    }

    /// Marks each response that is remembered, not fresh, with its age: as HTTP does with `Age` and `Warning: 110`.
    #[must_use]
    pub fn mark(mut self, mark: impl Fn(Res, Duration) -> Res + Send + Sync + 'static) -> Self {
        self.settings.mark = Some(Arc::new(mark));
        self
    }

    /// A layer that answers so.
    pub fn layer(&self) -> FallbackLayer<Self> {
        FallbackLayer::new(self.clone())
    }

    /// How many keys have a response that is remembered, be it too old to be given out.
    pub fn len(&self) -> usize {
        self.shelves.each().map(|shelf| shelf.len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the remembered responses weigh together.
    pub fn weight(&self) -> u64 {
        self.shelves.each().map(|shelf| shelf.weight()).sum()
    }

    /// Forgets the response to `key`: what it tells of is gone, or was not for everybody.
    pub fn forget(&self, key: &K) {
        let gone = self.shelves.of(key).remove(key);
        drop(gone);
    }

    fn bound(mut self, bounds: Bounds) -> Self {
        self.settings.bounds = bounds;
        self.shelves = Arc::new(Shelves::new(bounds));
        self
    }

    fn remember(&self, key: K, response: &Res) {
        let now = clock::end().at;
        if !self.settings.every.is_zero() {
            let age = self.shelves.of(&key).get(&key, now).map(|(_, age)| age);
            if age.is_some_and(|age| age < self.settings.every) {
                return;
            }
        }
        let Some(copy) = (self.settings.copy)(response) else {
            return;
        };
        let weigh = self.settings.weigh.as_ref();
        let weight = weigh.map_or(0, |weigh| weigh(&key, &copy));
        self.shelves.put(key, copy, weight, now);
    }

    fn last(&self, key: &K) -> Option<Res> {
        // The copy is made outside of the lock.
        let (response, age) = {
            let shelf = self.shelves.of(key);
            let (response, age) = shelf.get(key, clock::now())?;
            (Arc::clone(response), age)
        };
        let copy = (self.settings.copy)(&response)?;
        Some(match &self.settings.mark {
            Some(mark) => mark(copy, age),
            None => copy,
        })
    }
}

impl<Req, K, Res, E> Answer<Req, Res, E> for LastGood<Req, K, Res>
where
    K: Hash + Eq + Clone,
{
    type Kept = Option<K>;
    type Future = Ready<Result<Res, E>>;

    fn keep(&self, request: &Req) -> Option<K> {
        (self.settings.key)(request)
    }

    fn passes(&self, key: Option<K>, response: &Res) {
        if let Some(key) = key {
            self.remember(key, response);
        }
    }

    fn answer(&self, key: Option<K>, failed: Result<Res, E>) -> Self::Future {
        let last = key.and_then(|key| self.last(&key));
        ready(last.map_or(failed, Ok))
    }
}

impl<Req, K, Res> Clone for LastGood<Req, K, Res> {
    fn clone(&self) -> Self {
        let settings = &self.settings;
        Self {
            settings: Settings {
                key: Arc::clone(&settings.key),
                copy: Arc::clone(&settings.copy),
                weigh: settings.weigh.clone(),
                mark: settings.mark.clone(),
                ..*settings
            },
            shelves: Arc::clone(&self.shelves),
        }
    }
}

impl<Req, K, Res> fmt::Debug for LastGood<Req, K, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGood")
            .field("bounds", &self.settings.bounds)
            .field("every", &self.settings.every)
            .finish_non_exhaustive()
    }
}

const BOUNDS: Bounds = Bounds {
    keys: 1000,
    weight: u64::MAX,
    age: Duration::from_secs(300),
};
