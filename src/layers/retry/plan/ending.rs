use tower::Service;

use super::{Again, BoxAgain, CallResult, Plan};
use crate::clock;
use crate::deadline::Deadline;
use crate::layers::retry::Rules;
use crate::observe::{Event, GiveUp};

/// The end of a call that was to be tried again, and is not.
impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    /// The result of attempt number `attempt` is the caller's, though it asked for another.
    #[cold]
    pub(super) fn end(
        &self,
        kept: CallResult<S, Req>,
        attempt: u32,
        reason: GiveUp,
    ) -> CallResult<S, Req> {
        let account = &self.shared.policy.settings.account;
        account.observer.emit(&Event::GaveUp {
            retry: &account.name,
            attempts: attempt,
            reason,
        });
        kept
    }

    /// The same, where the next attempt was paid for and the peer never saw it.
    #[cold]
    pub(super) fn take_back(&self, again: BoxAgain<S, Req>, reason: GiveUp) -> CallResult<S, Req> {
        let made = again.so_far.attempt - 1;
        self.end(again.give_up(), made, reason)
    }

    /// Why the inner service is not asked, which is not ready.
    pub(super) fn not_ready(by: Option<Deadline>) -> GiveUp {
        match by {
            Some(by) if by.has_passed(clock::now()) => GiveUp::OutOfTime,
            _ => GiveUp::Refused,
        }
    }
}

impl<S, Res, E> Again<S, Res, E> {
    /// Its token goes back into the budget.
    fn give_up(mut self) -> Result<Res, E> {
        if let Some(token) = &mut self.token {
            token.spent = false;
        }
        self.kept
    }
}
