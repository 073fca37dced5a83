use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::layer::{By, Everyone, Limiter, RateLimitLayer};
use super::line::{Denied, Line, Place, Turn};
use super::lines::{Keyed, Lines};
use crate::algo::gcra::Limit;
use crate::clock::{self, Sleep};
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// A limit on how many calls there are in a time, for all of them or for each key `K`. Clones share its permits.
pub struct RateLimiter<K = ()> {
    lines: Arc<Lines<K>>,
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Arc<str>,
    longest: Duration,
    observer: Observer,
}

impl RateLimiter {
    /// One limit for all calls, which refuses at once what comes too early.
    pub fn new(name: impl Into<Arc<str>>, limit: Limit) -> Self {
        let line = Line::new(limit, clock::now());
        Self::with_lines(name, Lines::One(line))
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
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// The same limit for each key on its own: for each tenant, user or address.
    ///
    /// At most about `most_keys` are remembered. One that is idle, whose permits are all there again, is forgotten
    /// when there are many, which changes nothing for it. Only when so many are busy, those go that would be idle
    /// first, and begin anew; a key for which a call waits stays.
    ///
    /// # Panics
    ///
    /// If `most_keys` is 0.
    #[track_caller]
    pub fn per_key(name: impl Into<Arc<str>>, limit: Limit, most_keys: usize) -> Self {
        assert!(most_keys > 0, "a limiter of no keys remembers nothing");
        Self::with_lines(name, Lines::Keyed(Keyed::new(limit, most_keys)))
    }

    fn with_lines(name: impl Into<Arc<str>>, lines: Lines<K>) -> Self {
        Self {
            lines: Arc::new(lines),
            settings: Arc::new(Settings {
                name: name.into(),
                longest: Duration::ZERO,
                observer: Observer::default(),
            }),
        }
    }

    /// Lets a call wait for its permits, first come, first served, for at most `longest` and never past its request's
    /// [`Deadline`](crate::Deadline). What would have to wait longer is refused at once, so the queue is never longer
    /// than the permits of that time. Default 0, no waiting: who is over a limit should hear of it.
    #[must_use]
    pub fn wait(mut self, longest: Duration) -> Self {
        Arc::make_mut(&mut self.settings).longest = longest;
        self
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
        let state = match self.lines.line(key).ask(permits, self.settings.longest) {
            Ok(place) => self.wait_at(place, permits),
            Err(denied) => State::Refused {
                rejected: Some(self.settings.refused(permits, denied)),
            },
        };
        Acquire { state }
    }

    fn wait_at(&self, place: Place, permits: u32) -> State {
        State::Waiting {
            place: Some(place),
            permits,
            timer: None,
            settings: Arc::clone(&self.settings),
        }
    }

    /// Goes by another limit from now on. What was taken stays taken, permit for permit; who waits is served at the new
    /// rate, or refused if that would take too long.
    pub fn reconfigure(&self, limit: Limit) {
        self.lines.reconfigure(limit);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// How many calls wait for permits.
    pub fn waiting(&self) -> usize {
        let mut waiting = 0;
        self.lines.each(|line| waiting += line.waiting());
        waiting
    }

    /// How many keys are remembered; 1 where there is one limit for all.
    pub fn keys(&self) -> usize {
        self.lines.len()
    }
}

impl<K: Hash + Eq> Limiter for RateLimiter<K> {
    type Key = K;
    type Acquire = Acquire;

    fn acquire_for(&self, key: K, permits: u32) -> Acquire {
        Self::acquire_for(self, key, permits)
    }

    fn enter(&self, key: K, permits: u32) -> Result<Option<Acquire>, Rejected> {
        match self.lines.line(key).ask(permits, self.settings.longest) {
            Ok(place) if place.has_permits() => {
                place.spend();
                Ok(None)
            }
            Ok(place) => Ok(Some(Acquire {
                state: self.wait_at(place, permits),
            })),
            Err(denied) => Err(self.settings.refused(permits, denied)),
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

impl Settings {
    fn refused(&self, cost: u32, denied: Denied) -> Rejected {
        let rejected = |reason| Rejected::new("rate limit", reason).named(Arc::clone(&self.name));
        self.observer.refused(match denied {
            Denied::For(wait) => rejected(Reason::RateLimited).retry_after(wait),
            Denied::Never { burst } => rejected(Reason::CostAboveBurst { cost, burst }),
        })
    }
}

pin_project! {
    /// The wait for permits; see [`RateLimiter::acquire_for`]. Dropped before it is done, it gives them back.
    #[derive(Debug)]
    #[must_use = "permits or a place in the queue are held until this is awaited or dropped"]
    pub struct Acquire {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        Waiting {
            // Taken once its permits are spent.
            place: Option<Place>,
            permits: u32,
            #[pin]
            timer: Option<Sleep>,
            settings: Arc<Settings>,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl Future for Acquire {
    type Output = Result<(), Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (denied, permits, settings) = match state.as_mut().project() {
            StateProj::Waiting {
                place,
                permits,
                mut timer,
                settings,
            } => loop {
                let at = match place.as_mut().expect("polled after completion").poll(cx) {
                    Ok(Turn::At(at)) => at,
                    Ok(Turn::Now) => {
                        place.take().into_iter().for_each(Place::spend);
                        return Poll::Ready(Ok(()));
                    }
                    Err(denied) => break (denied, *permits, Arc::clone(settings)),
                };
                let set = timer.as_ref().as_pin_ref();
                if set.is_none_or(|set| set.deadline().into_std() != at) {
                    timer.set(Some(clock::until(at)));
                }
                if let Some(timer) = timer.as_mut().as_pin_mut() {
                    ready!(timer.poll(cx));
                }
            },
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                return Poll::Ready(Err(rejected));
            }
        };
        // The place is left before anybody is told.
        state.set(State::Refused { rejected: None });
        Poll::Ready(Err(settings.refused(permits, denied)))
    }
}
