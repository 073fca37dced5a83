use std::time::{Duration, Instant};

use super::machine::Breaker;
use super::phase::Phase;
use crate::algo::Rng;
use crate::algo::window::Tally;

/// What can be put off: while a success decides nothing, it may be counted later.
impl Breaker {
    /// The number of the present state, if it lets every call through and counts it: until that changes, a call needs
    /// not ask.
    pub(crate) fn flowing(&self) -> Option<u64> {
        matches!(self.phase, Phase::Closed | Phase::MetricsOnly).then_some(self.epoch)
    }

    /// Until when calls that succeed, and are not [slow](Self::slow_call), decide nothing, however many there are: they
    /// can be counted later with [`record_successes`](Self::record_successes), but before all else. `None` if the next
    /// one may decide.
    pub(crate) fn calm_until(&self, now: Instant) -> Option<Instant> {
        self.flowing()?;
        (!self.a_success_may_open()).then(|| self.window.moves(now))?
    }

    pub(crate) fn slow_call(&self) -> Duration {
        self.settings.slow_call
    }

    /// Counts calls that succeeded in a calm, in the present state.
    pub(crate) fn record_successes(&mut self, calls: u64, now: Instant, rng: &mut impl Rng) {
        if calls == 0 || self.flowing().is_none() {
            return;
        }
        let epoch = self.epoch;
        self.failures_in_row = 0;
        let mut counted = 0;
        if self.a_success_may_open() {
            // The calm may have ended beside the last of them: then the one that makes the calls enough decides.
            let held = self.window.held().calls;
            let mut enough = [self.minimum(), self.count_minimum()];
            enough.sort_unstable();
            for enough in enough {
                let deciding = u64::from(enough.saturating_sub(held).max(1));
                if deciding > calls {
                    break;
                }
                self.window.add_successes(deciding - counted);
                counted = deciding;
                self.judge(false, now, rng);
                if self.epoch != epoch {
                    return;
                }
            }
        }
        self.window.add_successes(calls - counted);
    }

    /// Whether a condition can hold once more calls have succeeded, though none did before.
    fn a_success_may_open(&self) -> bool {
        // More successes lower every rate, once there are enough calls for one; and only time takes calls away.
        let held = self.window.held();
        let from = |minimum: u32| Tally {
            calls: held.calls.max(minimum),
            ..held
        };
        // A count that holds already is one that other settings have brought.
        self.settings.open_on_success
            && (self.too_bad(from(self.minimum()))
                || self.has_failed_often(from(self.count_minimum())))
    }
}
