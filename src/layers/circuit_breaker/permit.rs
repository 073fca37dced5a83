use std::fmt;
use std::time::Instant;

use super::shared::Shared;
use crate::algo::breaker::{Call, Ticket};
use crate::algo::lanes::Share;
use crate::algo::tick::Moment;
use crate::classify::Outcome;
use crate::clock;
use crate::rng::ThreadRng;

/// The right to make one call. Dropped without a result it counts as the settings say of a
/// [cancelled](crate::algo::breaker::Settings::cancelled) call, and as a failure if the thread is panicking.
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    /// Taken once it is accounted for.
    pub(super) ticket: Option<Ticket>,
    pub(super) started: Instant,
    pub(super) shared: Share<Shared>,
}

impl Permit {
    /// Counts how the call went; it began when the permit was given.
    pub fn record(self, outcome: Outcome) {
        self.record_at(Moment::of(clock::now()), outcome);
    }

    #[inline(always)]
    pub(super) fn record_at(mut self, now: Moment, outcome: Outcome) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let counted = outcome == Outcome::Success
            && self.shared.flow.succeed(ticket.epoch(), self.started, now);
        if !counted {
            self.finish(ticket, now.at, Some(outcome));
        }
    }

    /// Gives it back unused: nothing is counted.
    pub fn release(self) {
        self.record(Outcome::Ignored);
    }

    fn dropped(&self, ticket: Ticket) {
        let panicked = std::thread::panicking().then_some(Outcome::Failure);
        self.finish(ticket, clock::now(), panicked);
    }

    /// No outcome: the call was cancelled.
    fn finish(&self, ticket: Ticket, now: Instant, outcome: Option<Outcome>) {
        let elapsed = now.saturating_duration_since(self.started);
        self.shared.step(now, |breaker| {
            let call = match outcome {
                Some(Outcome::Success) => Call::succeeded(elapsed),
                Some(Outcome::Failure) => Call::failed(elapsed),
                Some(Outcome::Overload(retry_after)) => Call {
                    retry_after,
                    ..Call::failed(elapsed)
                },
                Some(Outcome::Ignored) => return breaker.release(ticket, now, &mut ThreadRng),
                None => return breaker.cancel(ticket, elapsed, now, &mut ThreadRng),
            };
            breaker.record(ticket, call, now, &mut ThreadRng);
        });
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.dropped(ticket);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("breaker", &self.shared.name)
            .finish_non_exhaustive()
    }
}
