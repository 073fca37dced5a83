use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::member::Member;
use super::{CircuitBreaker, CircuitBreakersLayer, Permit};
use crate::algo::breaker::Settings;
use crate::classify::ErrorsFail;
use crate::clock;
use crate::error::Rejected;
use crate::keyed::{Family, Rule};
use crate::observe::Observer;

/// A circuit breaker for each key `K`: for each host, tenant or route. Clones share them.
///
/// A breaker is made when its key is first called, and called `name/key` in refusals and events: so a key's `Display`
/// must hold no secret, and there should not be more keys than the figures can bear.
///
/// # What is forgotten
///
/// At most about `most_keys` are remembered. When there are many, those go first that are [idle](Self::idle_after);
/// if that makes no room, an eighth of those that are closed go, unused for longest; and only if there are none of
/// those, ones that are open or half-open. A key that comes back after that begins with a new, closed breaker. What
/// was not closed is closed as it goes, so that listeners hear of it.
///
/// A breaker stays while a call is under way or somebody holds it, and while it is forced open, disabled or counting
/// only, since somebody said so: by so many there may be more than `most_keys`.
///
/// What calls count in is kept for the next breaker when one is forgotten: 0.7 KB on two cores, 8 KB on 32 or more.
pub struct CircuitBreakers<K> {
    pub(super) shared: Arc<Shared<K>>,
    idle: Duration,
    observer: Observer,
}

pub(super) struct Shared<K> {
    pub(super) family: Family<K, Member>,
    /// Told whenever a call of one of them may have become possible, or impossible.
    pub(super) changed: Arc<Notify>,
}

impl<K: Hash + Eq + fmt::Display> CircuitBreakers<K> {
    /// A family of closed breakers, none of which is made yet.
    ///
    /// # Panics
    ///
    /// If `most_keys` is 0.
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, settings: Settings, most_keys: usize) -> Self {
        Self::with(name.into(), Rule::Same(settings), most_keys)
    }

    /// As [`new`](Self::new), but each breaker has the settings that `settings` says for its key. It is asked when the
    /// breaker is made, and not when it is called.
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
        assert!(most_keys > 0, "a family of no keys has no breaker");
        Self {
            shared: Arc::new(Shared {
                family: Family::new(name, settings, most_keys),
                changed: Arc::default(),
            }),
            idle: Duration::from_secs(600),
            observer: Observer::default(),
        }
    }

    /// After how long without a call a breaker is idle, if it is closed or its wait is over. Default 10 min: ten times
    /// as long as it stays open at most, and so does not forget a long outage while that lasts. For breakers made from
    /// now on by this handle and its clones.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Tells `observer` what the breakers [tell](CircuitBreaker::observe): those made from now on by this handle and its
    /// clones.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// A layer that guards each call with the breaker of its key. An error counts as a failure; see
    /// [`classify`](CircuitBreakersLayer::classify).
    pub fn layer<Req, F>(&self, key: F) -> CircuitBreakersLayer<K, F, ErrorsFail>
    where
        F: Fn(&Req) -> K,
    {
        CircuitBreakersLayer::new(self.clone(), key)
    }

    /// The breaker of `key`, made if there is none. It is not forgotten while this is held.
    pub fn breaker(&self, key: K) -> CircuitBreaker {
        let now = clock::now();
        self.at(key, now, CircuitBreaker::clone)
    }

    /// Asks for one call for `key`, for work that is no service. Dropping the permit counts as a cancelled call.
    ///
    /// # Errors
    ///
    /// As [`CircuitBreaker::try_acquire`].
    pub fn try_acquire(&self, key: K) -> Result<Permit, Rejected> {
        self.try_acquire_at(key, clock::now())
    }

    #[inline]
    pub(super) fn try_acquire_at(&self, key: K, now: Instant) -> Result<Permit, Rejected> {
        self.at(key, now, |breaker| breaker.try_acquire_at(now))
    }

    /// What `look` sees in the breaker of `key`, used at `now`.
    #[inline]
    fn at<T>(&self, key: K, now: Instant, look: impl Fn(&CircuitBreaker) -> T) -> T {
        let look = |member: &Member| look(member.at(now));
        let Shared { family, changed } = &*self.shared;
        let known = family.find(&key, look);
        known.unwrap_or_else(|| {
            let new = |name: String, settings| {
                let changed = Some(Arc::clone(changed));
                let breaker = CircuitBreaker::of_family(name.into(), settings, changed);
                Member::new(breaker.observe(self.observer.clone()), self.idle, now)
            };
            family.find_or_insert(key, new, look)
        })
    }
}

impl<K: Hash + Eq> CircuitBreakers<K> {
    /// The breaker of `key`, if it was called and is not forgotten.
    pub fn find(&self, key: &K) -> Option<CircuitBreaker> {
        self.shared.family.find(key, |it| it.breaker().clone())
    }

    /// Forgets those that are idle, and shows each of the others with its key.
    pub fn each(&self, mut look: impl FnMut(&K, &CircuitBreaker)) {
        self.shared.family.sweep();
        self.shared
            .family
            .each(|key, member| look(key, member.breaker()));
    }

    /// Goes by other settings from now on: each breaker in the state it is in, and those that are made later.
    pub fn reconfigure(&self, settings: Settings) {
        self.shared.family.reconfigure(Rule::Same(settings));
    }

    /// As [`reconfigure`](Self::reconfigure), by the settings that `settings` says for each key.
    pub fn reconfigure_by<F>(&self, settings: F)
    where
        F: Fn(&K) -> Settings + Send + Sync + 'static,
    {
        self.shared
            .family
            .reconfigure(Rule::ByKey(Box::new(settings)));
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.shared.family.len()
    }
}

impl<K> CircuitBreakers<K> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.shared.family.name()
    }
}

// By hand: no key needs to be cloned or shown.
impl<K> Clone for CircuitBreakers<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            idle: self.idle,
            observer: self.observer.clone(),
        }
    }
}

impl<K> fmt::Debug for CircuitBreakers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakers")
            .field("name", &self.shared.family.name())
            .finish_non_exhaustive()
    }
}
