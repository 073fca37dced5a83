use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::layer::{By, Everyone, Limiter, RateLimitLayer};
use super::line::Line;
use super::lines::{Keyed, Lines};
use super::settings::Settings;
use super::{Acquire, LimitOf};
use crate::algo::gcra::Limit;
use crate::clock;
use crate::error::Rejected;
use crate::observe::Observer;

/// A limit on how many calls there are in a time, for all of them or for each key `K`. Clones share its permits.
pub struct RateLimiter<K = ()> {
    lines: Arc<Lines<K>>,
    settings: Arc<Settings>,
}

impl RateLimiter {
    /// One limit for all calls, which refuses at once what comes too early.
    pub fn new(name: impl Into<Arc<str>>, limit: Limit) -> Self {
        let line = Line::new(limit, clock::now());
        Self::with_lines(Settings::new(name.into()), Lines::One((), line))
    }

    /// A layer that puts calls behind this limiter. All its layers share the permits.
    pub fn layer(&self) -> RateLimitLayer<Self, Everyone> {
        RateLimitLayer::new(self.clone(), Everyone)
    }

    /// Asks for `permits` without tower; see [`acquire_for`](Self::acquire_for).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire(&self, permits: u32) -> Acquire {
        self.acquire_for((), permits)
    }

    /// How many permits are there; below 0 as many as those who wait have been promised.
    pub fn available(&self) -> i64 {
        self.lines.line(()).available()
    }

    /// Takes whatever permits are there: for a peer that says by itself that it has had enough.
    pub fn drain(&self) {
        self.lines.line(()).drain();
    }

    /// Lets nobody in for so long, counted from now, or until an earlier pause ends if that is later: for a peer that says
    /// when to come back. Who may wait until then waits, and the others are refused and told exactly when it ends. What
    /// costs nothing passes. The permits go on coming, so that there may be a burst at the end.
    ///
    /// A layer does so by itself where its [`classify`](RateLimitLayer::classify) is set.
    pub fn pause(&self, wait: Duration) {
        self.lines.line(()).pause(wait);
    }

    /// Ends a pause. None of the permits is there then: they come from now on.
    pub fn resume(&self) {
        self.lines.line(()).resume();
    }

    /// For how much longer nobody is let in; zero if there is no pause.
    pub fn paused_for(&self) -> Duration {
        self.lines.line(()).paused_for()
    }
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// A limit for each key on its own, for each tenant, user or address: the same [`Limit`] for all of them, or what a
    /// function of the key says. The function is asked when a key is first seen, and again when it is seen after it was
    /// forgotten, or when the limit is [reconfigured](Self::reconfigure).
    ///
    /// ```
    /// use std::time::Duration;
    /// use buttress::algo::gcra::Limit;
    /// use buttress::layers::rate_limit::RateLimiter;
    ///
    /// let plan = |tenant: &u64| match tenant {
    ///     ..100 => Limit::new(1000, Duration::from_secs(1)),
    ///     _ => Limit::new(10, Duration::from_secs(1)),
    /// };
    /// let tenants = RateLimiter::per_key("tenants", plan, 10_000);
    /// assert_eq!(tenants.of(7).available(), 1000);
    /// assert_eq!(tenants.of(700).available(), 10);
    /// ```
    ///
    /// At most about `most_keys` are remembered. One that is idle, whose permits are all there again, is forgotten
    /// when there are many, which changes nothing for it. Only when so many are busy, those go that would be idle
    /// first, and begin anew; a key for which a call waits stays, and so does one that somebody [holds](Self::of).
    ///
    /// # Panics
    ///
    /// If `most_keys` is 0.
    #[track_caller]
    pub fn per_key(
        name: impl Into<Arc<str>>,
        limit: impl LimitOf<K> + Send + Sync + 'static,
        most_keys: usize,
    ) -> Self {
        assert!(most_keys > 0, "a limiter of no keys remembers nothing");
        let keyed = Keyed::new(Arc::new(limit), most_keys);
        Self::with_lines(Settings::new(name.into()), Lines::Keyed(keyed))
    }

    /// The limiter of `key`, to read it and to steer it; made if there is none.
    ///
    /// It is not forgotten while this is held. A limit that it is [given](Self::reconfigure) is the key's until the one
    /// of all keys is reconfigured, and the key is not forgotten until then: by so many there may be more than
    /// `most_keys`. How long its callers wait, and its observer, are of this handle alone.
    #[must_use]
    pub fn of(&self, key: K) -> RateLimiter {
        self.with_line(self.lines.line(key))
    }

    /// As [`of`](Self::of), if the key was seen and is not forgotten.
    pub fn find(&self, key: &K) -> Option<RateLimiter> {
        Some(self.with_line(self.lines.find(key)?))
    }

    /// Lets a call wait for its permits, first come, first served, for at most `longest` and never past its request's
    /// [`Deadline`](crate::Deadline). What would have to wait longer is refused at once, so the queue is never longer
    /// than the permits of that time. Default 0, no waiting: who is over a limit should hear of it.
    #[must_use]
    pub fn wait(mut self, longest: Duration) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.longest.set(longest);
        self
    }

    /// Lets calls [wait](Self::wait) for at most `longest` from now on: those of this handle, of its clones and of its
    /// layers, but for clones that have had a setting of their own since. Who waits already may do so for as long as it
    /// was told.
    pub fn set_wait(&self, longest: Duration) {
        self.settings.longest.set(longest);
    }

    /// How long calls may wait for their permits at most.
    pub fn longest_wait(&self) -> Duration {
        self.settings.longest.get()
    }

    /// Tells `observer` of each call refused.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer.into();
        self
    }

    /// A layer that puts each call behind the limit of its key.
    pub fn layer_by<Req, F>(&self, key: F) -> RateLimitLayer<Self, By<F>>
    where
        F: Fn(&Req) -> K,
    {
        RateLimitLayer::new(self.clone(), By(key))
    }

    /// Asks for `permits` for `key` without tower, and waits for them where it may.
    ///
    /// They are taken now, or a place in the queue is, and not when the future is first polled. Dropped before it is
    /// done, the future gives them back.
    ///
    /// # Errors
    ///
    /// [`Rejected`] by `"rate limit"`: `RateLimited`, with the time until the permits are there;
    /// `CostAboveBurst` where that time never comes.
    pub fn acquire_for(&self, key: K, permits: u32) -> Acquire {
        let asked = self
            .lines
            .line(key)
            .ask(permits, self.settings.longest.get());
        Acquire::new(asked, permits, &self.settings)
    }

    /// Goes by another limit from now on, one for all or a function of the key, which is asked for each key that is
    /// remembered. What was taken stays taken, permit for permit; who waits is served at the new rate, or refused if that
    /// would take too long.
    pub fn reconfigure(&self, limit: impl LimitOf<K> + Send + Sync + 'static) {
        self.lines.reconfigure(Arc::new(limit));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// How many calls wait for permits.
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// How many keys are remembered; 1 where there is one limit for all.
    pub fn keys(&self) -> usize {
        self.lines.len()
    }
}

impl<K> RateLimiter<K> {
    fn with_lines(settings: Settings, lines: Lines<K>) -> Self {
        Self {
            lines: Arc::new(lines),
            settings: Arc::new(settings),
        }
    }

    fn with_line(&self, line: Line) -> RateLimiter {
        RateLimiter::with_lines(Settings::clone(&self.settings), Lines::One((), line))
    }
}

impl<K: Hash + Eq> Limiter for RateLimiter<K> {
    type Key = K;
    type Acquire = Acquire;

    fn acquire_for(&self, key: K, permits: u32) -> Acquire {
        Self::acquire_for(self, key, permits)
    }

    fn enter(&self, key: K, permits: u32) -> Result<Option<Acquire>, Rejected> {
        match self
            .lines
            .line(key)
            .ask(permits, self.settings.longest.get())
        {
            Ok(place) if place.has_permits() => {
                place.spend();
                Ok(None)
            }
            Ok(place) => Ok(Some(Acquire::new(Ok(place), permits, &self.settings))),
            Err(denied) => Err(self.settings.refused(permits, denied)),
        }
    }

    fn overloaded(&self, key: K, wait: Option<Duration>) {
        let line = self.lines.line(key);
        match wait {
            Some(wait) => line.pause(wait.min(LONGEST_HEEDED)),
            None => line.drain(),
        }
    }
}

// By hand: no key needs to be cloned or shown.
impl<K> Clone for RateLimiter<K> {
    fn clone(&self) -> Self {
        Self {
            lines: Arc::clone(&self.lines),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<K> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

/// As long as quotas by the hour need. A slip of the peer must not shut it off for days.
const LONGEST_HEEDED: Duration = Duration::from_secs(3600);
