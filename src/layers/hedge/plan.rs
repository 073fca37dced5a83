use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tower::Service;

use super::{CopyRequest, HedgeLayer};
use crate::algo::tick::Moment;
use crate::budget::{Paid, Underway};
use crate::classify::{Classify, Outcome};
use crate::clock::{self, Sleep};
use crate::deadline::{Deadline, poll_ready_in_time};
use crate::observe::Event;

/// What further attempts need.
pub(super) struct Plan<S, Req, C, K> {
    policy: Arc<HedgeLayer<C, K>>,
    /// The next attempt's; `None` where no further attempt may follow.
    next: Option<(S, Req)>,
    /// The number of the last attempt, 1 for the first.
    attempt: u32,
    /// When the next attempt is due, unless one fails before.
    due: Instant,
    /// Whether the call has paid into the budget.
    counted: bool,
    _underway: Option<Underway>,
}

/// What the result of an attempt means for the call.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// It is the call's.
    Answer,
    /// The next attempt is due.
    Failed,
    /// The peer wants to be left alone.
    Overloaded,
    /// A layer inside kept the attempt away from the peer.
    Refused,
}

impl<S, Req, C, K> Plan<S, Req, C, K>
where
    S: Service<Req>,
    C: CopyRequest<Req>,
    K: Classify<S::Response, S::Error>,
{
    pub(super) fn new(
        policy: Arc<HedgeLayer<C, K>>,
        inner: S,
        request: Option<Req>,
        started: Instant,
    ) -> Self {
        let underway = policy.settings.account.begin();
        Self {
            due: clock::after(started, policy.settings.delay.current()),
            policy,
            next: request.map(|request| (inner, request)),
            attempt: 1,
            counted: false,
            _underway: underway,
        }
    }

    /// Whether there may be another attempt.
    pub(super) fn may_follow(&self) -> bool {
        self.next.is_some()
    }

    /// Makes no further attempt, and leaves the queue of the inner service if it stands in one.
    pub(super) fn give_up(&mut self) {
        self.next = None;
    }

    /// The number of the last attempt, 1 for the first.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Attempt number `attempt`, a hedge, gave the answer.
    pub(super) fn won(&self, attempt: u32) {
        let account = &self.policy.settings.account;
        account.observer.emit(&Event::HedgeWon {
            hedge: &account.name,
            attempt,
        });
    }

    /// The peer never saw an attempt. No other follows.
    pub(super) fn refused(&mut self) {
        self.attempt -= 1;
    }

    /// Writes into the answer how many attempts it took, if they were more than one.
    pub(super) fn mark(&self, result: &mut Result<S::Response, S::Error>) {
        if let (2.., Ok(response)) = (self.attempt, result) {
            self.policy.classify.mark_response(response, self.attempt);
        }
    }

    /// When it is due, unless one fails before.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn judge(&self, result: &Result<S::Response, S::Error>) -> Verdict {
        match (self.policy.classify.classify(result.as_ref()), result) {
            (Outcome::Success, _) | (Outcome::Ignored, Ok(_)) => Verdict::Answer,
            (Outcome::Ignored, Err(_)) => Verdict::Refused,
            (Outcome::Overload(Some(_)), _) => Verdict::Overloaded,
            (Outcome::Overload(None) | Outcome::Failure, _) => Verdict::Failed,
        }
    }

    /// Pays into the budget, once for a call: when its first attempt has ended, unless a layer inside refused it, or when
    /// it is hedged. A peer that never saw it shall not be sent hedges for it.
    pub(super) fn count(&mut self) {
        if !self.counted {
            let now = Moment::of(clock::now());
            self.policy.settings.account.deposit(now);
        }
        self.counted = true;
    }

    /// Takes the next attempt out of the budget; `None` if it must not be made.
    pub(super) fn pay(&mut self) -> Option<Paid> {
        self.count();
        let account = &self.policy.settings.account;
        account.pay(clock::now(), Duration::ZERO).ok()
    }

    /// The next attempt, once the inner service is ready; `None` if it failed or the deadline has passed.
    pub(super) fn poll_attempt(
        &mut self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<S::Future>> {
        let Some((inner, _)) = &mut self.next else {
            return Poll::Ready(None);
        };
        let ready = ready!(poll_ready_in_time(inner, Deadline::current(), timer, cx));
        Poll::Ready(if ready { self.send() } else { None })
    }

    fn send(&mut self) -> Option<S::Future> {
        let (mut inner, request) = self.next.take()?;
        let policy = &*self.policy;
        self.attempt += 1;
        let copy = match self.attempt < policy.settings.attempts {
            true => policy.copy.copy(&request, self.attempt + 1),
            false => None,
        };
        let account = &policy.settings.account;
        account.observer.emit(&Event::Hedging {
            hedge: &account.name,
            attempt: self.attempt,
        });
        let attempt = inner.call(request);
        if let Some(copy) = copy {
            self.next = Some((inner, copy));
            self.due = clock::after(clock::now(), policy.settings.delay.current());
        }
        Some(attempt)
    }
}
