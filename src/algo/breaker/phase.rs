use std::time::{Duration, Instant};

use super::State;
use crate::algo::window::Tally;

/// A state, and what it keeps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Closed,
    Open {
        wait: Wait,
        cause: Tally,
        /// From how many calls on `cause` makes a rate.
        minimum: u32,
    },
    HalfOpen {
        wait: Wait,
        admitted: u32,
        back: Tally,
    },
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

/// A length of time from a moment on; unlike its end, it cannot lie beyond what the clock can hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) since: Instant,
    pub(super) length: Duration,
}

impl Phase {
    pub(super) fn state(&self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
            Self::ForcedOpen => State::ForcedOpen,
            Self::Disabled => State::Disabled,
            Self::MetricsOnly => State::MetricsOnly,
        }
    }
}

impl Wait {
    pub(super) fn left(self, now: Instant) -> Duration {
        self.length
            .saturating_sub(now.saturating_duration_since(self.since))
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        self.left(now).is_zero()
    }
}
