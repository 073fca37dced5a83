use tower::Service;

use super::{Again, BoxAgain, CallResult, Plan};
use crate::clock;
use crate::deadline::Deadline;
use crate::layers::retry::{Decision, Rules};
use crate::observe::{Event, GiveUp};

/// The end of attempts after the first, and of a call that was to be tried again and is not.
impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    /// What goes to the caller after an attempt that was not the first; `None` if there is to be another.
    #[cold]
    pub(super) fn yet_another(&mut self, result: CallResult<S, Req>) -> Option<CallResult<S, Req>> {
        let again = self.again.as_mut().expect("an attempt has ended");
        // Over is over: its place in the budget is free for the next.
        again.token = None;
        let attempts = again.so_far.attempt;
        let rules = &self.shared.policy.rules;
        match &self.request {
            Some(request) => match rules.decide(request, result.as_ref()) {
                Decision::Done => Some(self.answer(result, attempts)),
                decision => self.retry(result, decision),
            },
            None => Some(self.answer(result, attempts)),
        }
    }

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
        self.answer(kept, attempt)
    }

    /// What the caller gets after so many attempts.
    fn answer(&self, mut result: CallResult<S, Req>, attempts: u32) -> CallResult<S, Req> {
        if let (Ok(response), 2..) = (&mut result, attempts) {
            self.shared.policy.rules.mark_response(response, attempts);
        }
        result
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
