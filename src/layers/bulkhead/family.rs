use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::member::Member;
use super::{Acquire, Bulkhead, BulkheadLayer, By, Release, Select, Settings};
use crate::clock;
use crate::keyed::{Family, Rule};
use crate::observe::Observer;

/// A bulkhead for each key `K`: for each service, instance or tenant. Clones share them.
///
/// A bulkhead is made when its key is first called, and called `name/key` in refusals: so a key's `Display` must hold no
/// secret, and there should not be more keys than the figures can bear.
///
/// # What is forgotten
///
/// At most about `most_keys` are remembered. When there are many, those go first that are [idle](Self::idle_after); if
/// that makes no room, an eighth of the others, unused for longest. A key that comes back after that has a new bulkhead,
/// which is as the old one was.
///
/// A bulkhead stays while a slot is taken, a call waits or somebody holds it, and while its settings are not those of
/// the family, since somebody said so: by so many there may be more than `most_keys`. A call that meets its bulkhead at
/// the very moment that it is forgotten counts in none that is made for its key after that.
///
/// What calls count in is kept for the next bulkhead when one is forgotten: 0.9 KB on two cores, 9 KB on 32 or more.
pub struct Bulkheads<K> {
    family: Arc<Family<K, Member>>,
    idle: Duration,
    observer: Observer,
}

impl<K: Hash + Eq + fmt::Display> Bulkheads<K> {
    /// A family of bulkheads, none of which is made yet.
    ///
    /// # Panics
    ///
    /// If `most_keys` is 0.
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, settings: Settings, most_keys: usize) -> Self {
        Self::with(name.into(), Rule::Same(settings), most_keys)
    }

    /// As [`new`](Self::new), but each bulkhead has the settings that `settings` says for its key. It is asked when the
    /// bulkhead is made, and not when it is called.
    ///
    /// # Panics
    ///
    /// If `most_keys` is 0.
    #[track_caller]
    pub fn new_by<F>(name: impl Into<Arc<str>>, settings: F, most_keys: usize) -> Self
    where
        F: Fn(&K) -> Settings + Send + Sync + 'static,
    {
        Self::with(name.into(), Rule::ByKey(Box::new(settings)), most_keys)
    }

    #[track_caller]
    fn with(name: Arc<str>, settings: Rule<K, Settings>, most_keys: usize) -> Self {
        assert!(most_keys > 0, "a family of no keys has no bulkhead");
        Self {
            family: Arc::new(Family::new(name, settings, most_keys)),
            idle: Duration::from_secs(60),
            observer: Observer::default(),
        }
    }

    /// After how long without a call a bulkhead is idle. Default 1 min: to forget it loses nothing, but one that is
    /// called now and then need not be made each time. For bulkheads made from now on by this handle and its clones.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Tells `observer` of each call refused by the bulkheads made from now on by this handle and its clones.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// A layer that puts each call behind the bulkhead of its key. The slots come back with the response; see
    /// [`hold`](BulkheadLayer::hold).
    pub fn layer<Req, F>(&self, key: F) -> BulkheadLayer<Release, By<Self, F>>
    where
        F: Fn(&Req) -> K,
    {
        let bulkheads = self.clone();
        BulkheadLayer::new(By {
            bulkheads,
            name: key,
        })
    }

    /// The bulkhead of `key`, made if there is none. It is not forgotten while this is held, nor after that if it was
    /// [resized](Bulkhead::resize) or otherwise told to differ from the family.
    pub fn bulkhead(&self, key: K) -> Bulkhead {
        self.at(key, clock::now(), Bulkhead::clone)
    }

    /// Asks for a slot for `key` without tower, and waits for it where there is a queue.
    ///
    /// # Errors
    ///
    /// As [`Bulkhead::acquire`].
    pub fn acquire(&self, key: K) -> Acquire {
        self.at(key, clock::now(), Bulkhead::acquire)
    }

    /// What `look` sees in the bulkhead of `key`, used at `now`.
    #[inline]
    fn at<T>(&self, key: K, now: Instant, look: impl Fn(&Bulkhead) -> T) -> T {
        let look = |member: &Member| look(member.at(now));
        let known = self.family.find(&key, look);
        known.unwrap_or_else(|| {
            let new = |name, settings| {
                let bulkhead = Bulkhead::with(name, settings);
                Member::new(bulkhead.observe(self.observer.clone()), self.idle, now)
            };
            self.family.find_or_insert(key, new, look)
        })
    }
}

impl<K: Hash + Eq> Bulkheads<K> {
    /// The bulkhead of `key`, if it was called and is not forgotten.
    pub fn find(&self, key: &K) -> Option<Bulkhead> {
        self.family.find(key, |it| it.bulkhead().clone())
    }

    /// Forgets those that are idle, and shows each of the others with its key.
    pub fn each(&self, mut look: impl FnMut(&K, &Bulkhead)) {
        self.family.sweep();
        self.family.each(|key, member| look(key, member.bulkhead()));
    }

    /// Goes by other settings from now on: each bulkhead, as [`Bulkhead::reconfigure`] has it, and those that are made
    /// later.
    pub fn reconfigure(&self, settings: Settings) {
        self.family.reconfigure(Rule::Same(settings));
    }

    /// As [`reconfigure`](Self::reconfigure), by the settings that `settings` says for each key.
    pub fn reconfigure_by<F>(&self, settings: F)
    where
        F: Fn(&K) -> Settings + Send + Sync + 'static,
    {
        self.family.reconfigure(Rule::ByKey(Box::new(settings)));
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.family.len()
    }
}

impl<K> Bulkheads<K> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.family.name()
    }
}

// By hand: no key needs to be cloned or shown.
impl<K> Clone for Bulkheads<K> {
    fn clone(&self) -> Self {
        Self {
            family: Arc::clone(&self.family),
            idle: self.idle,
            observer: self.observer.clone(),
        }
    }
}

impl<K> fmt::Debug for Bulkheads<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkheads")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl<K, F, Req> Select<Req> for By<Bulkheads<K>, F>
where
    K: Hash + Eq + fmt::Display,
    F: Fn(&Req) -> K,
{
    #[inline]
    fn select<T>(&self, request: &Req, enter: impl Fn(&Bulkhead) -> T) -> T {
        let now = clock::begin().at;
        self.bulkheads.at((self.name)(request), now, enter)
    }
}
