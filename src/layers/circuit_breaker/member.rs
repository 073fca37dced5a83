use std::time::{Duration, Instant};

use super::CircuitBreaker;
use crate::algo::breaker::{Settings, State};
use crate::clock;
use crate::keyed::{self, Keep, Stay, Used};

/// A breaker of a family.
pub(super) struct Member {
    breaker: CircuitBreaker,
    used: Used,
    idle: Duration,
}

impl Member {
    pub(super) fn new(breaker: CircuitBreaker, idle: Duration, now: Instant) -> Self {
        Self {
            breaker,
            used: Used::new(now),
            idle,
        }
    }

    pub(super) fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// The breaker, used at `now`.
    #[inline]
    pub(super) fn at(&self, now: Instant) -> &CircuitBreaker {
        self.used.note(now);
        &self.breaker
    }
}

impl keyed::Member for Member {
    type Settings = Settings;

    fn reconfigure(&self, settings: Settings) {
        self.breaker.reconfigure(settings);
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
        let used = self.used.last();
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
