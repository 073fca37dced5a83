//! The only reader of time. It stands on tokio's clock, so that a paused test moves everything.

use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

pub use tokio::time::{Sleep, sleep, sleep_until};

use crate::algo::tick::Moment;

/// The time now, on a clock that only goes forward and that a test can pause.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Begins a call now. Until the guard is dropped, a call that is begun from within begins at the same moment, so that a
/// stack of layers reads the clock once on its way in.
#[inline]
pub(crate) fn begin() -> Begun {
    if let Some(at) = BEGUN.get() {
        return Begun { at, within: true };
    }
    let at = now();
    BEGUN.set(Some(at));
    Begun { at, within: false }
}

/// A call on its way in.
pub(crate) struct Begun {
    pub(crate) at: Instant,
    within: bool,
}

impl Drop for Begun {
    #[inline]
    fn drop(&mut self) {
        if !self.within {
            BEGUN.set(None);
        }
    }
}

/// Polls what a call waits for. If that is over, [`end`] says when.
#[inline]
pub(crate) fn poll<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    ENDED.set(None);
    poll()
}

/// When the call that was just [polled](poll) ended, as the first to ask read it: a stack of layers ends at one moment.
#[inline]
pub(crate) fn end() -> Moment {
    ENDED.get().unwrap_or_else(|| {
        let ended = Moment::of(now());
        ENDED.set(Some(ended));
        ended
    })
}

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    static ENDED: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// A timer for the moment `at`.
pub fn until(at: Instant) -> Sleep {
    sleep_until(at.into())
}

/// `at + wait`. A wait of more than about 30 years counts as that, so that the clock can hold its end.
#[inline]
pub fn after(at: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    at.checked_add(wait.min(FAR)).unwrap_or(at)
}

/// The calendar, for dates that peers send and for files. It may jump.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
