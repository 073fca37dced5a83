use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tower::Service;

use super::service::Shared;
use super::{Decision, Rules};
use crate::algo::backoff::Waits;
use crate::algo::lanes::Share;
use crate::budget::{Paid, Underway};
use crate::clock::{self, Sleep};
use crate::deadline::{Deadline, poll_ready_in_time};
use crate::observe::Event;
use crate::rng::ThreadRng;

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
}

impl<S, Res, E> Again<S, Res, E> {
    /// The peer never saw the attempt: its token goes back into the budget.
    fn give_up(mut self) -> Result<Res, E> {
        if let Some(token) = &mut self.token {
            token.spent = false;
        }
        self.kept
    }
}

/// What further attempts need.
pub(super) struct Plan<S, Req, R> {
    shared: Share<Shared<S, R>>,
    /// `None` if it was sent itself: no attempt can follow.
    request: Option<Req>,
    /// The number of the last attempt, 1 for the first.
    attempt: u32,
    waits: Waits,
    /// When the last attempt may begin.
    latest: Option<Instant>,
    _underway: Option<Underway>,
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
            _underway: settings.account.begin(),
            shared,
            request,
            attempt: 1,
            waits: Waits::default(),
        }
    }

    /// The wait for another attempt; `result`, or what was kept, if there is none.
    ///
    /// A first attempt pays into the budget here and not when it is made: a peer that never saw it, because a layer
    /// inside refused it, shall not be sent retries for it.
    #[inline]
    pub(super) fn another(
        &mut self,
        result: CallResult<S, Req>,
        again: &mut Option<BoxAgain<S, Req>>,
    ) -> Result<Pin<Box<Sleep>>, CallResult<S, Req>> {
        let policy = &self.shared.policy;
        if matches!(&result, Err(error) if policy.rules.is_refusal(error)) {
            return Err(match again.take() {
                Some(again) => again.give_up(),
                None => result,
            });
        }
        if let Some(again) = again {
            // Over is over: its place in the budget is free for the next.
            again.token = None;
        }
        if self.attempt == 1 {
            policy.settings.account.deposit(clock::end());
        }
        let Some(request) = &self.request else {
            return Err(result);
        };
        match policy.rules.decide(request, result.as_ref()) {
            Decision::Done => Err(result),
            decision => match self.wait(decision) {
                Some((wait, paid)) => {
                    self.keep(result, paid, again);
                    Ok(Box::pin(clock::sleep(wait)))
                }
                None => Err(result),
            },
        }
    }

    /// Keeps what the next attempt needs.
    fn keep(&self, kept: CallResult<S, Req>, token: Paid, again: &mut Option<BoxAgain<S, Req>>) {
        if let Some(again) = again {
            again.kept = kept;
            again.token = token;
            return;
        }
        *again = Some(Box::new(Again {
            inner: self.shared.inner(),
            kept,
            token,
        }));
    }

    /// How long to wait before the next attempt, and what it takes from the budget; `None` if there is none.
    fn wait(&mut self, decision: Decision) -> Option<(Duration, Paid)> {
        let settings = &self.shared.policy.settings;
        let now = clock::end();
        let left = self.latest.map_or(Duration::MAX, |latest| {
            latest.saturating_duration_since(now)
        });
        let wait = settings.wait(decision, &mut self.waits, left, &mut ThreadRng)?;
        let paid = settings.account.pay(now, wait)?;
        self.attempt += 1;
        settings.account.observer.emit(&Event::Retrying {
            retry: &settings.account.name,
            attempt: self.attempt,
            wait,
        });
        Some((wait, paid))
    }

    /// The request to send, once the inner service is ready; `None` if it failed or it is too late.
    pub(super) fn poll_ready(
        &mut self,
        inner: &mut S,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Req>> {
        let by = Deadline::earliest(self.latest.map(|latest| latest + TIMER));
        let ready = ready!(poll_ready_in_time(inner, by, timer, cx));
        Poll::Ready(if ready { self.take_request() } else { None })
    }

    /// A copy of the request, or itself where this is the last attempt.
    fn take_request(&mut self) -> Option<Req> {
        let policy = &self.shared.policy;
        let copy = match &self.request {
            Some(request) if self.attempt < policy.settings.attempts => {
                policy.rules.replay(request, self.attempt)
            }
            _ => None,
        };
        let mut request = copy.or_else(|| self.request.take())?;
        policy.rules.mark(&mut request, self.attempt);
        Some(request)
    }
}

/// How much later than asked a timer may go off: it counts whole milliseconds.
const TIMER: Duration = Duration::from_millis(2);
