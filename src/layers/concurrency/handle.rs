use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::acquire::Acquire;
use super::{AllEqual, ConcurrencyLayer, Permit, Priority};
use crate::admitted::Entry;
use crate::algo::Rng;
use crate::algo::limit::{Average, Limit, PerEvent, Sample, rejection_rate};
use crate::classify::{ErrorsFail, Outcome};
use crate::clock;
use crate::error::{Reason, Rejected};
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;
use crate::slots::{Admission, Slots, Wait};

/// A limit on calls under way that finds itself. Clones share it.
#[derive(Clone)]
pub struct ConcurrencyLimit {
    pub(super) slots: Slots,
    measured: Arc<Mutex<Measured>>,
    settings: Arc<Settings>,
}

struct Measured {
    limit: PerEvent<Box<dyn Limit + Send>>,
    /// How long an answer takes, in seconds.
    latency: Average,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Arc<str>,
    queue: Option<Queue>,
    observer: Observer,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    from: f64,
    to: f64,
    max_wait: Duration,
}

/// What a [`ConcurrencyLimit`] is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// How many calls may be under way at once.
    pub limit: usize,
    /// How many are: above the limit for a while after it shrank.
    pub in_flight: usize,
    /// How many wait in the queue.
    pub waiting: usize,
    /// How long an answer took on average, over about the last hundred. Zero before the first.
    pub latency: Duration,
}

impl ConcurrencyLimit {
    /// As many calls as `limit` finds, and the rest is refused at once.
    ///
    /// Whatever the algorithm, it shrinks once for each congestion, not for each call that it hits.
    pub fn new(name: impl Into<Arc<str>>, limit: impl Limit + Send + 'static) -> Self {
        let limit: Box<dyn Limit + Send> = Box::new(limit);
        Self {
            slots: Slots::new(limit.limit().max(1)),
            measured: Arc::new(Mutex::new(Measured {
                limit: PerEvent::new(limit),
                latency: Average::new(100, 10),
            })),
            settings: Arc::new(Settings {
                name: name.into(),
                queue: None,
                observer: Observer::default(),
            }),
        }
    }

    /// Lets calls wait for a slot, each for at most `max_wait` and never past its request's
    /// [`Deadline`](crate::Deadline). Off by default.
    ///
    /// All that come may wait while fewer than `from` times the limit do, none when `to` times the limit do, and in
    /// between a growing share is refused. Those of a higher [`Priority`] stand in front, and one that comes to a full
    /// queue takes the place of the last of a lower one; equals are served in the order in which they came, or
    /// [caller by caller](ConcurrencyLayer::fair_by). 2 and 3 take up a burst.
    ///
    /// # Panics
    ///
    /// If `from` is below 1 or above `to`, or `max_wait` is 0: that is no queue.
    #[must_use]
    #[track_caller]
    pub fn queue(mut self, from: f64, to: f64, max_wait: Duration) -> Self {
        assert!(from >= 1.0, "a queue of {from} times the limit is no queue");
        assert!(from <= to, "no queue is between {from} and {to}");
        assert!(!max_wait.is_zero(), "a queue of no wait is no queue");
        Arc::make_mut(&mut self.settings).queue = Some(Queue { from, to, max_wait });
        self
    }

    /// Tells `observer` of each call refused, and of the limit: where it stands now, and each change.
    ///
    /// A change is told to the observer of the handle whose call brought it.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer.into();
        self.tell();
        self
    }

    /// A layer that puts calls behind this limit. All its layers share it.
    pub fn layer(&self) -> ConcurrencyLayer<AllEqual, ErrorsFail> {
        ConcurrencyLayer::new(self.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Where it stands.
    pub fn figures(&self) -> Figures {
        Figures {
            limit: self.slots.limit(),
            in_flight: self.slots.in_flight(),
            waiting: self.slots.waiting(),
            latency: Duration::from_secs_f64(self.lock().latency.value()),
        }
    }

    /// Goes by another algorithm from now on, from where that one starts. Calls under way are left to end.
    pub fn reconfigure(&self, limit: impl Limit + Send + 'static) {
        let mut measured = self.lock();
        measured.limit = PerEvent::new(Box::new(limit));
        self.slots.set_limit(measured.limit.limit().max(1));
        drop(measured);
        self.slots.wake();
        self.tell();
    }

    /// Asks for a slot without tower, for work that is no service, and does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Rejected`] by `"concurrency limit"`: `Full`.
    pub fn try_acquire(&self, priority: Priority) -> Result<Permit, Rejected> {
        match self.slots.try_take(priority as u8) {
            Some(slot) => Ok(Permit::new(slot, self.clone())),
            None => Err(self.refused(Reason::Full {
                limit: self.slots.limit(),
            })),
        }
    }

    /// A slot, or the wait for one.
    pub(super) fn admit(
        &self,
        priority: Priority,
        caller: Option<u64>,
    ) -> Result<Entry<Permit, Acquire>, Rejected> {
        let Some(queue) = self.settings.queue else {
            return self.try_acquire(priority).map(Entry::Now);
        };
        let longest = queue.times(queue.to, self.slots.limit());
        let full = Reason::QueueFull { limit: longest };
        let turns_away = |waiting| {
            let threshold = queue.times(queue.from, self.slots.limit());
            ThreadRng.unit() < rejection_rate(waiting, threshold, longest)
        };
        let level = priority as u8;
        let admission = self.slots.take_or_queue(level, caller, full, turns_away);
        match admission {
            Admission::Permit(slot) => Ok(Entry::Now(Permit::new(slot, self.clone()))),
            Admission::Place(place) => Ok(Entry::Later(Acquire {
                wait: Some(Wait::new(place, queue.max_wait)),
                limit: self.clone(),
            })),
            Admission::QueueFull => Err(self.refused(full)),
        }
    }

    pub(super) fn refused(&self, reason: Reason) -> Rejected {
        let name = Arc::clone(&self.settings.name);
        let rejected = Rejected::new("concurrency limit", reason)
            .named(name)
            .unsent();
        self.settings.observer.refused(rejected)
    }

    /// Takes in how a call went. `None`: nobody waited for its end.
    pub(super) fn measure(&self, started: Instant, in_flight: usize, outcome: Option<Outcome>) {
        let now = clock::now();
        let rtt = now.saturating_duration_since(started);
        let mut measured = match outcome {
            Some(Outcome::Ignored) => return,
            Some(Outcome::Success) => match self.measured.try_lock() {
                Ok(measured) => measured,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Another call is being taken in. One latency more or less tells nothing; no call waits to tell it.
                Err(TryLockError::WouldBlock) => return,
            },
            _ => self.lock(),
        };
        let dropped = match outcome {
            Some(Outcome::Success) => {
                measured.latency.add(rtt.as_secs_f64());
                false
            }
            Some(Outcome::Overload(_)) => true,
            // Whoever gave up sooner than an answer usually comes did not do so for the peer's slowness.
            _ if rtt.as_secs_f64() <= measured.latency.value() => return,
            _ => true,
        };
        let sample = Sample {
            start: started,
            rtt,
            in_flight,
            dropped,
        };
        let before = measured.limit.limit();
        measured.limit.on_sample(sample, now);
        let limit = measured.limit.limit().max(1);
        // Under the lock, so that two changes are not set in the wrong order.
        let changed = limit != before;
        if changed {
            self.slots.set_limit(limit);
        }
        drop(measured);
        if changed {
            self.slots.wake();
            self.tell();
        }
    }

    /// Tells the limit as it is now, so that of two changes the one that is told last is not an old one.
    fn tell(&self) {
        self.settings.observer.emit(&Event::LimitChanged {
            name: &self.settings.name,
            limit: self.slots.limit(),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("name", &self.settings.name)
            .field("limit", &self.slots.limit())
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn times(self, factor: f64, limit: usize) -> usize {
        (limit as f64 * factor) as usize
    }
}
