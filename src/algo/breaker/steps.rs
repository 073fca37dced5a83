use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use super::machine::Breaker;
use super::phase::{Phase, Wait};
use super::settings::{Opening, Settings};
use super::{Change, State};
use crate::algo::Rng;
use crate::algo::window::Tally;

/// The steps from state to state, which it takes by itself and which are taken by hand.
impl Breaker {
    /// Closes it and forgets what it counted, the calls under way and earlier openings.
    pub fn close(&mut self) {
        self.openings = 0;
        self.window.clear();
        self.enter(Phase::Closed);
    }

    /// Opens it as if it had opened by itself.
    pub fn open(&mut self, now: Instant, rng: &mut impl Rng) {
        let longest = self.longest_wait();
        let wait = match self.settings.open_wait_by.clone() {
            Some(wait) => wait(self.opening(now)).as_secs_f64(),
            None => {
                let growth = self.settings.open_multiplier.powf(f64::from(self.openings));
                self.settings.open_wait.as_secs_f64() * growth
            }
        };
        let capped = wait.min(longest.as_secs_f64());
        let jittered = capped * (1.0 - self.settings.open_jitter * rng.unit());
        // Past what a duration holds there is only "for ever".
        let own = Duration::try_from_secs_f64(jittered).unwrap_or(longest);
        let asked = self
            .asked_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.open_for(own.max(asked), now);
    }

    fn opening(&mut self, now: Instant) -> Opening {
        Opening {
            number: self.openings.saturating_add(1),
            calls: self.counted(now).0,
        }
    }

    /// Opens it for `wait`, as if it had opened by itself.
    pub fn open_for(&mut self, wait: Duration, now: Instant) {
        let (cause, minimum) = self.counted(now);
        self.openings = self.openings.saturating_add(1);
        let wait = Wait {
            since: now,
            length: wait,
        };
        self.enter(Phase::Open {
            wait,
            cause,
            minimum,
        });
    }

    /// Lets the next calls probe.
    pub fn half_open(&mut self, now: Instant) {
        let limit = self.settings.half_open_limit;
        self.enter(Phase::HalfOpen {
            wait: Wait {
                since: now,
                length: limit.unwrap_or(self.settings.open_wait),
            },
            admitted: 0,
            back: Tally::default(),
        });
    }

    /// Refuses every call until another state is set.
    pub fn force_open(&mut self) {
        self.enter(Phase::ForcedOpen);
    }

    /// Lets every call through, uncounted, until another state is set.
    pub fn disable(&mut self) {
        self.enter(Phase::Disabled);
    }

    /// Lets every call through and counts, until another state is set.
    pub fn metrics_only(&mut self) {
        self.window.clear();
        self.enter(Phase::MetricsOnly);
    }

    /// Takes the step to `state`, for who has it as a value.
    ///
    /// # Errors
    ///
    /// If the step makes no sense: a breaker that lets every call through has nothing to probe, and one that only counts
    /// is to be neither open nor half-open. Nothing changes then.
    pub fn set(
        &mut self,
        state: State,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(), IllegalChange> {
        self.expire(now, rng);
        match (self.phase.state(), state) {
            (from @ State::Closed, to @ State::HalfOpen)
            | (from @ State::MetricsOnly, to @ (State::Open | State::HalfOpen)) => {
                return Err(IllegalChange(Change { from, to }));
            }
            (_, State::Closed) => self.close(),
            (_, State::Open) => self.open(now, rng),
            (_, State::HalfOpen) => self.half_open(now),
            (_, State::ForcedOpen) => self.force_open(),
            (_, State::Disabled) => self.disable(),
            (_, State::MetricsOnly) => self.metrics_only(),
        }
        Ok(())
    }

    /// Goes by other settings from now on, in the state it is in and with what it counted; a window of another shape
    /// starts empty.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) {
        if settings.window != self.settings.window {
            self.window = settings.window.empty(now);
        }
        self.settings = settings;
    }
}

/// A step by hand that makes no sense; see [`Breaker::set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalChange(pub Change);

impl fmt::Display for IllegalChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { from, to } = self.0;
        write!(f, "no circuit breaker goes from {from:?} to {to:?}")
    }
}

impl Error for IllegalChange {}
