use std::time::{Duration, Instant};

use super::machine::Breaker;
use super::phase::{Phase, Wait};
use super::settings::Settings;
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
        let growth = self.settings.open_multiplier.powf(f64::from(self.openings));
        let grown = self.settings.open_wait.as_secs_f64() * growth;
        let capped = grown.min(longest.as_secs_f64());
        let jittered = capped * (1.0 - self.settings.open_jitter * rng.unit());
        // Past what a duration holds there is only "for ever".
        let own = Duration::try_from_secs_f64(jittered).unwrap_or(longest);
        let asked = self
            .asked_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.open_for(own.max(asked), now);
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

    /// Goes by other settings from now on, in the state it is in and with what it counted; a window of another shape
    /// starts empty.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) {
        if settings.window != self.settings.window {
            self.window = settings.window.empty(now);
        }
        self.settings = settings;
    }
}
