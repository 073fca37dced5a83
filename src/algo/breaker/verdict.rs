use std::time::Instant;

use super::machine::Breaker;
use super::phase::Phase;
use super::settings::Span;
use super::{Condition, Notice, State};
use crate::algo::Rng;
use crate::algo::window::Tally;

/// What the calls that were counted decide.
impl Breaker {
    /// After a call; `asked` if that is reason enough.
    pub(super) fn judge(&mut self, asked: bool, now: Instant, rng: &mut impl Rng) {
        match self.phase {
            Phase::Closed | Phase::MetricsOnly => {
                let trips = self.trips(asked, now);
                if trips && matches!(self.phase, Phase::Closed) {
                    self.open(now, rng);
                }
            }
            Phase::HalfOpen { .. } if asked => self.open(now, rng),
            Phase::HalfOpen { back, .. } => {
                let missing = self.wanted_probes().saturating_sub(back.calls);
                if self.settings.await_all_probes && missing > 0 {
                    return;
                }
                match self.verdict(back, missing) {
                    Some(State::Open) => self.open(now, rng),
                    Some(_) => self.close(),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Whether a condition for opening holds; one that did not before is told.
    fn trips(&mut self, asked: bool, now: Instant) -> bool {
        let calls = self.window.tally(now);
        let enough = calls.calls >= self.minimum();
        let settings = &self.settings;
        let conditions = [
            (
                Condition::FailureRate,
                enough && calls.failure_rate() >= settings.failure_rate,
            ),
            (
                Condition::SlowCallRate,
                enough && calls.slow_rate() >= settings.slow_rate,
            ),
            (
                Condition::ConsecutiveFailures,
                self.failures_in_row >= settings.consecutive_failures,
            ),
            (Condition::FailureCount, self.has_failed_often(calls)),
            (Condition::Asked, asked),
        ];
        let mut trips = false;
        for (condition, _) in conditions.into_iter().filter(|(_, holds)| *holds) {
            trips = true;
            if !self.tripped.contains(&condition) {
                self.tripped.push(condition);
                self.notices.push_back(Notice::Tripped(condition));
            }
        }
        trips
    }

    /// What the probes that came back decide, whatever becomes of those that are `missing`.
    pub(super) fn verdict(&self, back: Tally, missing: u32) -> Option<State> {
        let calls = back.calls + missing;
        let worst = Tally {
            calls,
            failures: back.failures + missing,
            slow: back.slow + missing,
            slow_failures: back.slow_failures + missing,
        };
        let best = Tally { calls, ..back };
        let (opens, closes) = match self.settings.half_open_successes {
            Some(wanted) => {
                let wanted = wanted.min(self.settings.half_open_calls);
                (best.good() < wanted, worst.good() >= wanted)
            }
            None => (self.too_bad(best), !self.too_bad(worst)),
        };
        match (opens, closes) {
            (true, _) => Some(State::Open),
            (false, true) => Some(State::Closed),
            (false, false) => None,
        }
    }

    pub(super) fn too_bad(&self, calls: Tally) -> bool {
        calls.failure_rate() >= self.settings.failure_rate
            || calls.slow_rate() >= self.settings.slow_rate
    }

    pub(super) fn has_failed_often(&self, calls: Tally) -> bool {
        calls.failures >= self.settings.failure_count && calls.calls >= self.count_minimum()
    }

    pub(super) fn minimum(&self) -> u32 {
        self.once_full(self.settings.minimum_calls)
    }

    /// From how many calls on the count of failures may open it.
    pub(super) fn count_minimum(&self) -> u32 {
        self.once_full(self.settings.failure_count_calls)
    }

    fn once_full(&self, calls: u32) -> u32 {
        match self.settings.window {
            Span::Calls(size) => calls.min(size),
            Span::Time(_) => calls,
        }
    }

    /// How many probes are heard at most before a half-open breaker decides.
    pub(super) fn wanted_probes(&self) -> u32 {
        match self.settings.await_all_probes {
            true => self
                .settings
                .minimum_calls
                .min(self.settings.half_open_calls),
            false => self.settings.half_open_calls,
        }
    }
}
