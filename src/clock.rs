//! The only reader of time. It stands on tokio's clock, so that a paused test moves everything.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

pub use tokio::time::{Sleep, sleep, sleep_until};

/// The time now, on a clock that only goes forward and that a test can pause.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Begins a call now. A call that is begun by it, on the way in, begins at the same moment, so that a stack of layers
/// reads the clock once. What is polled later reads it again.
pub(crate) fn begin<T>(call: impl FnOnce(Instant) -> T) -> T {
    if let Some(begun) = BEGUN.get() {
        return call(begun);
    }
    let begun = now();
    BEGUN.set(Some(begun));
    let _ended = Ended;
    call(begun)
}

/// Ends the moment, after a panic too.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

thread_local! {
    /// When the call that is on its way in began.
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A timer for the moment `at`.
pub fn until(at: Instant) -> Sleep {
    sleep_until(at.into())
}

/// `at + wait`, or about 30 years from `at` where that is beyond what the clock can hold.
pub fn after(at: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    at.checked_add(wait.min(FAR)).unwrap_or(at)
}

/// The calendar, for dates that peers send and for files. It may jump.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
