use std::fmt;
use std::mem;
use std::time::Instant;

use super::flow::Flow;
use super::shared::Shared;
use crate::algo::breaker::{Call, Ticket};
use crate::algo::tick::Moment;
use crate::classify::Outcome;
use crate::clock;
use crate::rng::ThreadRng;
use crate::slab::Loan;

/// The right to make one call. Dropped without a result it counts as the settings say of a
/// [cancelled](crate::algo::breaker::Settings::cancelled) call, and as a failure if the thread is panicking.
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit(pub(super) Claim);

#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) epoch: u64,
    pub(super) started: Instant,
    pub(super) loan: Loan<Shared, Flow>,
}

impl Permit {
    /// Counts how the call went; it began when the permit was given.
    pub fn record(self, outcome: Outcome) {
        self.record_at(Moment::of(clock::now()), outcome);
    }

    /// Counts a call that has just ended. A success that nobody waited for is not worth a look at the clock, unless calls
    /// are timed.
    #[inline(always)]
    pub(crate) fn end(self, pended: bool, outcome: Outcome) {
        let Claim {
            epoch,
            started,
            loan,
        } = self.0;
        let flow = loan.state();
        let at_once = outcome == Outcome::Success && !pended && !flow.times_calls();
        if at_once && flow.succeed(epoch, started, clock::end_at_once(started)) {
            mem::forget(self);
        } else {
            self.record_at(clock::end(), outcome);
        }
    }

    #[inline(always)]
    fn record_at(self, now: Moment, outcome: Outcome) {
        let Claim {
            epoch,
            started,
            loan,
        } = self.0;
        mem::forget(self);
        let succeeded = outcome == Outcome::Success;
        if !(succeeded && loan.state().succeed(epoch, started, now)) {
            finish(epoch, started, loan, now.at, Some(outcome));
        }
    }

    /// Gives it back unused: nothing is counted.
    pub fn release(self) {
        self.record(Outcome::Ignored);
    }
}

/// No outcome: the call was cancelled. A breaker of which no handle is left counts no more.
#[cold]
fn finish(
    epoch: u64,
    started: Instant,
    loan: Loan<Shared, Flow>,
    now: Instant,
    outcome: Option<Outcome>,
) {
    let shared = loan.owner();
    // Dropped before the owner, and whatever an observer does.
    let _under_way = UnderWay(loan);
    let Some(shared) = &shared else {
        return;
    };
    let ticket = Ticket::of(epoch);
    let elapsed = now.saturating_duration_since(started);
    shared.step(now, |breaker| {
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

struct UnderWay(Loan<Shared, Flow>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().end();
    }
}

#[cold]
fn dropped(epoch: u64, started: Instant, loan: Loan<Shared, Flow>) {
    let panicked = std::thread::panicking().then_some(Outcome::Failure);
    finish(epoch, started, loan, clock::now(), panicked);
}

impl Drop for Permit {
    #[inline(always)]
    fn drop(&mut self) {
        let Claim {
            epoch,
            started,
            loan,
        } = self.0;
        dropped(epoch, started, loan);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.0.loan.owner();
        f.debug_struct("Permit")
            .field("breaker", &owner.as_ref().map(|it| &it.name))
            .finish_non_exhaustive()
    }
}
