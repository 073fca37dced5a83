use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tower::Service;

use super::shared::Shared;
use super::{Decision, Rules};
use crate::algo::backoff::Waits;
use crate::algo::lanes::Share;
use crate::budget::{Paid, Underway};
use crate::clock::{self, Sleep};
use crate::deadline::{Deadline, poll_ready_in_time};
use crate::observe::{Event, GiveUp};
use crate::rng::ThreadRng;
use crate::seldom::Seldom;

mod ending;

use ending::{give_up, not_ready};

pub(super) type BoxAgain<S, Req> =
    Box<Again<S, <S as Service<Req>>::Response, <S as Service<Req>>::Error>>;

pub(super) type CallResult<S, Req> =
    Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

/// What a call has that is tried again.
pub(super) struct Again<S, Res, E> {
    pub(super) inner: S,
    /// What the peer said last. It is the answer if the next attempt is never made or is refused.
    pub(super) kept: Result<Res, E>,
    /// The attempt's that is coming or under way, spent once that has begun.
    pub(super) token: Paid,
    /// What comes before that. `None` once it is over.
    pub(super) wait: Option<Pin<Box<Sleep>>>,
    /// The deadline's, registered only once the inner service is pending.
    deadline: Option<Pin<Box<Sleep>>>,
    so_far: SoFar,
}

/// How often a call was tried, and how long it waited in between.
#[derive(Clone, Copy)]
struct SoFar {
    /// The number of the last attempt, 1 for the first.
    attempt: u32,
    waits: Waits,
}

const FIRST: SoFar = SoFar {
    attempt: 1,
    waits: Waits::NONE,
};

/// What further attempts need.
pub(crate) struct Plan<S: Service<Req>, Req, R> {
    shared: Share<Shared<S, R>>,
    /// `None` if it was sent itself: no attempt can follow.
    request: Option<Req>,
    /// When the last attempt may begin.
    latest: Option<Instant>,
    _underway: Seldom<Underway>,
    /// `None` until the first attempt has ended. In a box, for most calls need none, and the layers around move what is
    /// here.
    pub(super) again: Seldom<BoxAgain<S, Req>>,
    /// Whether somebody waited for an attempt.
    pub(super) pended: bool,
}

impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    #[inline]
    pub(super) fn new(shared: Share<Shared<S, R>>, request: Option<Req>) -> Self {
        let settings = &shared.policy.settings;
        let latest = |limit| clock::after(clock::begin().at, limit);
        Self {
            latest: settings.limit.map(latest),
            _underway: Seldom::new(settings.account.begin()),
            shared,
            request,
            again: Seldom::new(None),
            pended: false,
        }
    }

    /// As [`new`](Self::new), for a call that began at `began`, the first attempt of which has ended.
    pub(crate) fn resume(
        shared: Share<Shared<S, R>>,
        request: Option<Req>,
        began: Instant,
        pended: bool,
    ) -> Self {
        let limit = shared.policy.settings.limit;
        Self {
            latest: limit.map(|limit| clock::after(began, limit)),
            _underway: Seldom::new(None),
            shared,
            request,
            again: Seldom::new(None),
            pended,
        }
    }

    /// What goes to the caller, `result` or what was kept; `None` if there is to be another attempt.
    ///
    /// A first attempt pays into the budget here and not when it is made: a peer that never saw it, because a layer
    /// inside refused it, shall not be sent retries for it.
    #[inline(always)]
    pub(crate) fn another(&mut self, result: CallResult<S, Req>) -> Option<CallResult<S, Req>> {
        let policy = &self.shared.policy;
        if matches!(&result, Err(error) if policy.rules.is_refusal(error)) {
            return Some(match self.again.take() {
                Some(again) => again.take_back(GiveUp::Refused, &policy.settings.account),
                None => result,
            });
        }
        match &mut *self.again {
            Some(_) => return self.retry(result, None),
            None => policy.settings.account.deposit(match self.pended {
                true => clock::end(),
                false => clock::end_as_known(),
            }),
        }
        let Some(request) = &self.request else {
            return Some(result);
        };
        match policy.rules.decide(request, result.as_ref()) {
            Decision::Done => Some(result),
            decision => self.retry(result, Some(decision)),
        }
    }

    /// What goes to the caller where `decision` is to try again, or is not made yet since the attempt was not the first.
    #[cold]
    pub(crate) fn retry(
        &mut self,
        mut kept: CallResult<S, Req>,
        decision: Option<Decision>,
    ) -> Option<CallResult<S, Req>> {
        let decision = match decision {
            Some(decision) => decision,
            None => self.over(&mut kept),
        };
        if decision == Decision::Done {
            return Some(kept);
        }
        let mut so_far = self.again.as_ref().map_or(FIRST, |again| again.so_far);
        let (wait, token) = match self.wait(decision, &mut so_far) {
            Ok(next) => next,
            Err(reason) => {
                give_up(&self.shared.policy.settings.account, so_far.attempt, reason);
                return Some(kept);
            }
        };
        let wait = Some(Box::pin(clock::sleep(wait)));
        match &mut *self.again {
            Some(again) => {
                again.kept = kept;
                again.token = token;
                again.wait = wait;
                again.deadline = None;
                again.so_far = so_far;
            }
            None => {
                *self.again = Some(Box::new(Again {
                    inner: self.shared.inner(),
                    kept,
                    token,
                    wait,
                    deadline: None,
                    so_far,
                }));
            }
        }
        None
    }

    /// How long to wait before the next attempt, and what it takes from the budget; else why there is none.
    fn wait(&self, decision: Decision, so_far: &mut SoFar) -> Result<(Duration, Paid), GiveUp> {
        let settings = &self.shared.policy.settings;
        let now = clock::end().at;
        let left = self.latest.map_or(Duration::MAX, |latest| {
            latest.saturating_duration_since(now)
        });
        let wait = settings.wait(decision, &mut so_far.waits, left, &mut ThreadRng)?;
        let paid = settings.account.pay(now, wait)?;
        so_far.attempt += 1;
        settings.account.observer.emit(&Event::Retrying {
            retry: &settings.account.name,
            attempt: so_far.attempt,
            wait,
        });
        Ok((wait, paid))
    }

    /// After an attempt has ended: the next one, or what was kept if the inner service failed or it is too late.
    #[cold]
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Future, CallResult<S, Req>>> {
        let again = self.again.as_mut().expect("an attempt has ended");
        if let Some(wait) = &mut again.wait {
            ready!(wait.as_mut().poll(cx));
            again.wait = None;
        }
        let by = Deadline::earliest(self.latest.map(|latest| latest + TIMER));
        let timer = &mut again.deadline;
        let ready = ready!(poll_ready_in_time(&mut again.inner, by, timer, cx));
        let attempt = again.so_far.attempt;
        let request = if ready {
            self.take_request(attempt)
        } else {
            None
        };
        let mut again = self.again.take().expect("an attempt has ended");
        let Some(request) = request else {
            let account = &self.shared.policy.settings.account;
            return Poll::Ready(Err(again.take_back(not_ready(by), account)));
        };
        if let Some(token) = &mut again.token {
            token.spent = true;
        }
        let next = again.inner.call(request);
        *self.again = Some(again);
        Poll::Ready(Ok(next))
    }

    /// A copy of the request, or itself where this is the last attempt.
    fn take_request(&mut self, attempt: u32) -> Option<Req> {
        let policy = &self.shared.policy;
        let copy = match &self.request {
            Some(request) if attempt < policy.settings.attempts => {
                policy.rules.replay(request, attempt)
            }
            _ => None,
        };
        let mut request = copy.or_else(|| self.request.take())?;
        policy.rules.mark(&mut request, attempt);
        Some(request)
    }
}

/// How much later than asked a timer may go off: it counts whole milliseconds.
const TIMER: Duration = Duration::from_millis(2);
