use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::CircuitBreaker;
use crate::algo::breaker::State;
use crate::clock;
use crate::keyed::{Keep, Stay};

/// A breaker of a family.
pub(super) struct Member {
    breaker: CircuitBreaker,
    made: Instant,
    /// In nanoseconds since `made`.
    used: AtomicU64,
    idle: Duration,
}

impl Member {
    pub(super) fn new(breaker: CircuitBreaker, idle: Duration, now: Instant) -> Self {
        Self {
            breaker,
            made: now,
            used: AtomicU64::new(0),
            idle,
        }
    }

    pub(super) fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// The breaker, used at `now`.
    #[inline]
    pub(super) fn at(&self, now: Instant) -> &CircuitBreaker {
        let used = self.nanos(now);
        // Written seldom: all calls of the key share its line.
        if used.saturating_sub(self.used.load(Ordering::Relaxed)) >= GRAIN {
            self.used.store(used, Ordering::Relaxed);
        }
        &self.breaker
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Keep for Member {
    /// Whether it guards against something, and when it was used, from any fixed moment on.
    type Worth = (bool, Instant);

    fn stay(&self) -> Stay<Self::Worth> {
        let now = clock::now();
        let (state, waits) = self.breaker.standing(now);
        let tripped = match state {
            State::Closed => false,
            State::Open | State::HalfOpen => true,
            State::ForcedOpen | State::Disabled | State::MetricsOnly => return Stay::Held,
        };
        if self.breaker.is_held() {
            return Stay::Held;
        }
        let used = clock::after(
            self.made,
            Duration::from_nanos(self.used.load(Ordering::Relaxed)),
        );
        let unused = now.saturating_duration_since(used);
        match !waits && unused >= self.idle {
            true => Stay::Idle,
            false => Stay::Worth((tripped, used)),
        }
    }

    fn forgotten(&self) {
        if self.breaker.standing(clock::now()).0 != State::Closed {
            self.breaker.close();
        }
    }
}

/// How exactly it is known when a breaker was used, in nanoseconds.
const GRAIN: u64 = 10_000_000;
