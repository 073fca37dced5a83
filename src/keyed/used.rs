use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// When a value was last used, to about 10 ms.
#[derive(Debug)]
pub(crate) struct Used {
    made: Instant,
    /// In nanoseconds since `made`.
    last: AtomicU64,
}

impl Used {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            made: now,
            last: AtomicU64::new(0),
        }
    }

    /// It is used at `now`.
    #[inline]
    pub(crate) fn note(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made);
        let used = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        // Written seldom: all calls of the key share its line.
        if used.saturating_sub(self.last.load(Ordering::Relaxed)) >= GRAIN {
            self.last.store(used, Ordering::Relaxed);
        }
    }

    pub(crate) fn last(&self) -> Instant {
        let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        clock::after(self.made, last)
    }
}

/// In nanoseconds.
const GRAIN: u64 = 10_000_000;
