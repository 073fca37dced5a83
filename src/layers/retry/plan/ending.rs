use tower::Service;

use super::{Again, CallResult, Plan};
use crate::budget::Account;
use crate::clock;
use crate::deadline::Deadline;
use crate::layers::retry::{Decision, RetryLayer, Rules};
use crate::observe::{Event, GiveUp};

impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    /// What to do after an attempt that was not the first. Its result is told which it was.
    pub(super) fn over(&mut self, result: &mut CallResult<S, Req>) -> Decision {
        let again = self.again.as_mut().expect("an attempt has ended");
        let RetryLayer { rules, settings } = &self.shared.policy;
        // Over is over: its place in the budget is free for the next.
        again.token = None;
        let attempt = again.so_far.attempt;
        if let Ok(response) = result {
            rules.mark_response(response, attempt);
        }
        if let Some(request) = &self.request {
            return rules.decide(request, result.as_ref());
        }
        let last = attempt == settings.attempts && settings.account.observer.is_somebody();
        if last && rules.is_failure(result.as_ref()) {
            give_up(&settings.account, attempt, GiveUp::AttemptsUsedUp);
        }
        Decision::Done
    }
}

impl<S, Res, E> Again<S, Res, E> {
    /// The peer never saw the next attempt: its token goes back into the budget, and what was kept to the caller.
    #[cold]
    #[allow(clippy::boxed_local)] // It leaves its box here, and not where every call passes.
    pub(super) fn take_back(
        mut self: Box<Self>,
        reason: GiveUp,
        account: &Account,
    ) -> Result<Res, E> {
        if let Some(mut token) = self.token.take() {
            token.spent = false;
        }
        give_up(account, self.so_far.attempt - 1, reason);
        self.kept
    }
}

/// Says that `attempts` are all, though the last one's result asked for another.
#[cold]
pub(super) fn give_up(account: &Account, attempts: u32, reason: GiveUp) {
    account.observer.emit(&Event::GaveUp {
        retry: &account.name,
        attempts,
        reason,
    });
}

/// Why there is no attempt, if the inner service is not ready for it and there was time until `by`.
pub(super) fn not_ready(by: Option<Deadline>) -> GiveUp {
    match by {
        Some(by) if by.has_passed(clock::now()) => GiveUp::OutOfTime,
        _ => GiveUp::Refused,
    }
}
