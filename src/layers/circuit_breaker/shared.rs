use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::flow::{Flow, Given};
use crate::algo::breaker::{Breaker, Change, Notice};
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;

/// What the clones of a handle share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) flow: &'static Flow,
    pub(super) inner: Mutex<Inner>,
    /// Told whenever a call may have become possible, or impossible.
    pub(super) changed: Notify,
    /// Told as `changed` is, of all breakers of a family.
    pub(super) family: Option<Arc<Notify>>,
}

pub(super) struct Inner {
    pub(super) breaker: Breaker,
    pub(super) given: Given,
    pub(super) observer: Observer,
    /// Whether a thread is telling the observer; it takes on those that come up meanwhile.
    pub(super) telling: bool,
}

impl Shared {
    /// One step of the breaker; what came of it is told once the lock is released.
    pub(super) fn step<T>(&self, now: Instant, step: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = self.lock();
        let Inner { breaker, given, .. } = &mut *inner;
        if let Some(epoch) = breaker.flowing() {
            let more = given.more(self.flow, epoch);
            breaker.record_successes(more, now, &mut ThreadRng);
        }
        let refused = breaker.refusal(now, &mut ThreadRng).is_some();
        let result = step(breaker);
        // The last probe taken, or one given back, makes a difference without a change of state.
        let differs = refused != breaker.refusal(now, &mut ThreadRng).is_some();
        let told = breaker.has_notice();
        self.flow.set(breaker, now);
        drop(inner);
        if told || differs {
            self.tell_changed();
        }
        if told {
            self.tell();
        }
        result
    }

    pub(super) fn tell_changed(&self) {
        self.changed.notify_waiters();
        if let Some(family) = &self.family {
            family.notify_waiters();
        }
    }

    /// Tells the observer of the notices in their order, one thread at a time.
    fn tell(&self) {
        loop {
            let mut inner = self.lock();
            if inner.telling {
                return;
            }
            let Some(notice) = inner.breaker.next_notice() else {
                return;
            };
            inner.telling = true;
            let observer = inner.observer.clone();
            drop(inner);
            let _telling = Telling(self);
            let breaker = &*self.name;
            observer.emit(&match notice {
                Notice::Tripped(condition) => Event::Tripped { breaker, condition },
                Notice::Changed(Change { from, to }) => Event::StateChanged { breaker, from, to },
            });
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held while the observer is told, so that one that panics does not silence the breaker.
struct Telling<'a>(&'a Shared);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.lock().telling = false;
    }
}
