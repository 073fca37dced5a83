use std::fmt::{self, Display};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::Redis;
use super::link::Unavailable;
use super::script::{Answer, Debt, Question};
use crate::algo::gcra::Limit;
use crate::clock;
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::layers::rate_limit::{By, Everyone, Limiter, RateLimitLayer, RateLimiter};
use crate::observe::Observer;

/// A limit on how many calls there are in a time, of all processes together that have one of this name on the same
/// server; for all of the calls or for each key `K`. Clones share it.
pub struct SharedLimiter<K = ()> {
    redis: Redis,
    /// For while the server cannot be asked.
    alone: RateLimiter<K>,
    limit: Arc<Mutex<Limit>>,
    settings: Arc<Settings<K>>,
}

struct Settings<K> {
    name: Arc<str>,
    /// What the names of its keys begin with.
    place: String,
    write: fn(&K) -> String,
    processes: u32,
    refuses_alone: bool,
    observer: Observer,
}

impl SharedLimiter {
    /// One limit for all calls of all processes.
    ///
    /// # Panics
    ///
    /// If the limit has steps, a warm-up or is sliding, or takes more than a hundred years to be full again: those do not
    /// fit into what is kept of it.
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, limit: Limit, redis: &Redis) -> Self {
        let name = name.into();
        let alone = RateLimiter::new(Arc::clone(&name), limit);
        Self::with(name, limit, redis, alone, |()| String::new())
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
}

impl<K: Hash + Eq + Send + Sync + 'static> SharedLimiter<K> {
    /// The same limit for each key on its own, by the key's `Display`. The server remembers a key until its permits are
    /// all there again. Without the server, a process remembers at most `most_keys`, as
    /// [`RateLimiter::per_key`] does.
    ///
    /// # Panics
    ///
    /// As [`new`](SharedLimiter::new), and if `most_keys` is 0.
    #[track_caller]
    pub fn per_key(name: impl Into<Arc<str>>, limit: Limit, most_keys: usize, redis: &Redis) -> Self
    where
        K: Display,
    {
        let name = name.into();
        let alone = RateLimiter::per_key(Arc::clone(&name), limit, most_keys);
        Self::with(name, limit, redis, alone, |key| format!(":{key}"))
    }

    #[track_caller]
    fn with(
        name: Arc<str>,
        limit: Limit,
        redis: &Redis,
        alone: RateLimiter<K>,
        write: fn(&K) -> String,
    ) -> Self {
        assert_fits(limit);
        // So that no name and key together are the name of another.
        let escaped = name.replace('%', "%25").replace(':', "%3A");
        Self {
            redis: redis.clone(),
            alone,
            limit: Arc::new(Mutex::new(limit)),
            settings: Arc::new(Settings {
                place: format!("{}:rate:{escaped}", redis.settings.prefix),
                name,
                write,
                processes: 1,
                refuses_alone: false,
                observer: Observer::default(),
            }),
        }
    }

    /// Lets a call wait for its permits, in the order in which the server was asked, for at most `longest` and never past
    /// its request's [`Deadline`]. What would have to wait longer is refused at once. Default 0, no waiting.
    #[must_use]
    pub fn wait(mut self, longest: Duration) -> Self {
        self.alone = self.alone.wait(longest.min(LONGEST_WAIT));
        self
    }

    /// Lets calls wait for at most `longest` from now on, in this process; see [`RateLimiter::set_wait`].
    pub fn set_wait(&self, longest: Duration) {
        self.alone.set_wait(longest.min(LONGEST_WAIT));
    }

    /// How long calls may wait for their permits at most.
    pub fn longest_wait(&self) -> Duration {
        self.alone.longest_wait()
    }

    /// How many processes share the limit, more or less. While the server cannot be asked, each goes by its share
    /// of it alone. Default 1, the whole limit: how many there are, nobody here knows.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn processes(mut self, processes: u32) -> Self {
        self.alone.reconfigure(self.limit().share(processes));
        Arc::make_mut(&mut self.settings).processes = processes;
        self
    }

    /// Refuses while the server cannot be asked: for a limit that costs more to pass than an outage does. Default: each
    /// process goes by a limit of its own, so that what stands behind the limit does not go down with the server, and is
    /// not flooded either.
    #[must_use]
    pub fn refuse_alone(mut self) -> Self {
        Arc::make_mut(&mut self.settings).refuses_alone = true;
        self
    }

    /// Tells `observer` of each call refused.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        let observer = observer.into();
        self.alone = self.alone.observe(observer.clone());
        Arc::make_mut(&mut self.settings).observer = observer;
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
    /// The server is asked when the future is first polled. Dropped while it waits for permits that it was promised, it
    /// gives them back, unless others were promised after them; dropped before the server answered, it may have spent
    /// them. So the limit is never passed.
    ///
    /// # Errors
    ///
    /// [`Rejected`] by `"rate limit"`: `RateLimited`, with the time until the permits are there; `CostAboveBurst` where
    /// that time never comes; `StoreUnavailable` from one that [refuses](Self::refuse_alone) without its server.
    pub fn acquire_for(&self, key: K, permits: u32) -> Acquire {
        let limiter = self.clone();
        Acquire(Box::pin(async move { limiter.take(key, permits).await }))
    }

    /// Goes by another limit from now on, in this process. What was taken stays taken, permit for permit.
    ///
    /// # Panics
    ///
    /// As [`new`](SharedLimiter::new).
    #[track_caller]
    pub fn reconfigure(&self, limit: Limit) {
        assert_fits(limit);
        *self.lock() = limit;
        self.alone.reconfigure(limit.share(self.settings.processes));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    async fn take(&self, key: K, cost: u32) -> Result<(), Rejected> {
        if cost == 0 {
            return Ok(());
        }
        let settings = &self.settings;
        let (limit, longest) = (self.limit(), self.longest_wait());
        if let Some(burst) = never(limit, cost, longest) {
            return Err(self.refused(Reason::CostAboveBurst { cost, burst }, None));
        }
        let deadline = Deadline::current();
        let left = || deadline.map_or(Duration::MAX, |it| it.remaining(clock::now()));
        let longest = self.wait_out_pause(&key, longest.min(left())).await?;
        let question = Question {
            key: format!("{}{}", settings.place, (settings.write)(&key)),
            limit,
            cost,
            longest: longest.min(left()),
        };
        let asked = self.redis.ask(&question);
        let answer = match deadline {
            None => asked.await,
            Some(deadline) => tokio::select! {
                biased;
                answer = asked => answer,
                () = clock::until(deadline.instant()) => {
                    return Err(self.refused(Reason::DeadlineExceeded, None));
                }
            },
        };
        let (wait, debt) = match answer {
            Ok(Answer::Taken { wait, debt }) => (wait, debt),
            Ok(Answer::Denied { wait }) => {
                return Err(self.refused(Reason::RateLimited, Some(wait)));
            }
            Err(Unavailable(wait)) if settings.refuses_alone => {
                return Err(self.refused(Reason::StoreUnavailable, wait));
            }
            Err(_) => return self.alone.acquire_for(key, cost).await,
        };
        if !wait.is_zero() {
            let promised = Promised {
                redis: &self.redis,
                permits: Some((question.key, debt)),
            };
            clock::sleep(wait).await;
            promised.spend();
        }
        Ok(())
    }

    /// Waits until a pause has ended, if there is one, and says how much of `longest` is left.
    async fn wait_out_pause(&self, key: &K, longest: Duration) -> Result<Duration, Rejected> {
        let began = clock::now();
        loop {
            let left = longest.saturating_sub(clock::now() - began);
            let paused = self.alone.find(key).map(|it| it.paused_for());
            match paused.unwrap_or_default() {
                Duration::ZERO => return Ok(left),
                wait if wait > left => return Err(self.refused(Reason::RateLimited, Some(wait))),
                wait => clock::sleep(wait).await,
            }
        }
    }

    fn refused(&self, reason: Reason, wait: Option<Duration>) -> Rejected {
        let name = Arc::clone(&self.settings.name);
        let rejected = Rejected::new("rate limit", reason).named(name).unsent();
        self.settings.observer.refused(match wait {
            Some(wait) => rejected.retry_after(wait),
            None => rejected,
        })
    }

    fn limit(&self) -> Limit {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Limiter for SharedLimiter<K> {
    type Key = K;
    type Acquire = Acquire;

    fn acquire_for(&self, key: K, permits: u32) -> Acquire {
        Self::acquire_for(self, key, permits)
    }

    /// This process sends nothing for so long; the others hear for themselves. Without a time nothing changes: what is
    /// there is not this process's alone.
    fn overloaded(&self, key: K, wait: Option<Duration>) {
        if wait.is_some() {
            self.alone.overloaded(key, wait);
        }
    }
}

// By hand: no key needs to be cloned or shown.
impl<K> Clone for SharedLimiter<K> {
    fn clone(&self) -> Self {
        Self {
            redis: self.redis.clone(),
            alone: self.alone.clone(),
            limit: Arc::clone(&self.limit),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<K> Clone for Settings<K> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            place: self.place.clone(),
            observer: self.observer.clone(),
            ..*self
        }
    }
}

impl<K> fmt::Debug for SharedLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimiter")
            .field("name", &self.settings.name)
            .field("redis", &self.redis)
            .finish_non_exhaustive()
    }
}

/// The wait for permits; see [`SharedLimiter::acquire_for`].
#[must_use = "nothing is asked for until this is awaited"]
// A box for each: a question to another process costs a thousand times as much.
pub struct Acquire(Pin<Box<dyn Future<Output = Result<(), Rejected>> + Send>>);

impl Future for Acquire {
    type Output = Result<(), Rejected>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acquire")
    }
}

/// Permits that may be used later. Dropped until then, they are given back.
struct Promised<'a> {
    redis: &'a Redis,
    permits: Option<(String, Debt)>,
}

impl Promised<'_> {
    fn spend(mut self) {
        self.permits = None;
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        if let Some((key, debt)) = self.permits.take() {
            self.redis.give_back(key, debt);
        }
    }
}

/// The burst, if not even an idle limiter could give so many permits in time.
fn never(limit: Limit, cost: u32, longest: Duration) -> Option<u32> {
    let burst = limit.largest_burst();
    let (micros, rest) = limit.worth(cost.checked_sub(burst)?);
    (micros + u128::from(rest > 0) > longest.as_micros()).then_some(burst)
}

#[track_caller]
fn assert_fits(limit: Limit) {
    assert!(
        limit.is_smooth(),
        "a shared limit has no steps and no warm-up, and is not sliding"
    );
    assert!(
        limit.worth(limit.largest_burst()).0 < LONGEST.as_micros(),
        "a shared limit must be full again within a hundred years"
    );
}

// Up to here all numbers of the script are whole in a double.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 365 * 86_400);
