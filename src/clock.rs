//! The only reader of time. It stands on tokio's clock, so that a paused test moves everything.

use std::time::{Duration, Instant, SystemTime};

pub use tokio::time::{Sleep, sleep, sleep_until};

/// The time now, on a clock that only goes forward and that a test can pause.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A timer for the moment `at`.
pub fn until(at: Instant) -> Sleep {
    sleep_until(at.into())
}

/// `at + wait`. A wait of more than about 30 years counts as that, so that the clock can hold its end.
pub fn after(at: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    at.checked_add(wait.min(FAR)).unwrap_or(at)
}

/// The calendar, for dates that peers send and for files. It may jump.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
