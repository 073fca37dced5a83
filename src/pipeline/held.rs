use std::mem;
use std::time::Instant;

use tower::Service;

use super::service::{Attempts, Layers};
use crate::algo::lanes::{Share, Spread};
use crate::algo::tick::Moment;
use crate::classify::{Classify, Outcome};
use crate::clock;
use crate::error::Rejected;
use crate::layers::circuit_breaker::{CircuitBreaker, Permit};
use crate::layers::fallback::{Answer, FallbackFuture};
use crate::layers::retry::{self, Decision, Plan, Retry, RetryFuture, Rules};
use crate::layers::timeout::Limits;
use crate::observe::Who;
use crate::slots::{self, Slots};

/// What the calls of a pipeline share.
pub(super) struct Shared<S, A, R, C, L> {
    answer: Spread<A>,
    who: Who,
    retry: Spread<retry::Shared<Attempts<S, C, L>, R>>,
    pub(super) breaker: CircuitBreaker,
    classify: C,
    pub(super) slots: Slots,
    /// Whether the first attempt of a call can be made here.
    pub(super) begins: bool,
}

impl<S, A, R, C: Clone, L> Shared<S, A, R, C, L> {
    pub(super) fn new(layers: &Layers<S, A, R, C, L>) -> Self {
        let retry = &layers.inner;
        let breaker = &retry.inner;
        Self {
            answer: layers.answer.clone(),
            who: layers.who.clone(),
            retry: retry.shared.clone(),
            breaker: breaker.breaker.clone(),
            classify: breaker.classify.clone(),
            slots: breaker.inner.bulkhead.slots.clone(),
            begins: retry.shared.policy.settings.starts_with_nothing(),
        }
    }
}

impl<S, A, R, C, L> Shared<S, A, R, C, L> {
    /// What the fallback keeps of a request, the request for the first attempt, and what further ones are copies of.
    #[inline(always)]
    pub(super) fn prepare<Req, Res, E>(&self, request: Req) -> (A::Kept, Req, Option<Req>)
    where
        A: Answer<Req, Res, E>,
        R: Rules<Req, Res, E>,
    {
        let kept = self.answer.keep(&request);
        let rules = &self.retry.policy.rules;
        let (mut first, request) = match rules.replay(&request, 1) {
            Some(copy) => (copy, Some(request)),
            None => (request, None),
        };
        rules.mark(&mut first, 1);
        (kept, first, request)
    }
}

/// Held while a call is made, which takes a slot: what panics gives it back, and counts against the peer once the breaker has
/// let it in.
pub(super) struct Making<'a, S, A, R, C, L> {
    pub(super) shared: &'a Shared<S, A, R, C, L>,
    pub(super) epoch: u64,
    pub(super) began: Instant,
    /// Whether what runs is the peer's.
    pub(super) counts: bool,
}

impl<S, A, R, C, L> Drop for Making<'_, S, A, R, C, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // By value, so that it need not be kept in memory.
        let Shared { breaker, slots, .. } = self.shared;
        slots.give_back();
        if self.counts {
            unmade(breaker, self.epoch, self.began);
        }
    }
}

#[cold]
fn unmade(breaker: &CircuitBreaker, epoch: u64, began: Instant) {
    drop(breaker.permit(epoch, began));
}

/// What a call has while its first attempt is under way: a slot, and the breaker's leave.
pub(super) struct Held<T, Req, K> {
    shared: Share<T>,
    epoch: u64,
    began: Instant,
    /// `None` if it was sent itself: no attempt can follow.
    request: Option<Req>,
    /// What the fallback keeps of the request. `None` once that has it.
    kept: Option<K>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Begun,
    /// Somebody waits for it.
    Pended,
    /// It panicked, which the breaker knows.
    Panicked,
    Over {
        pended: bool,
    },
}

/// How a call goes on whose first attempt is over: what it ends with, or in the layers.
pub(super) type Next<S, A, R, C, L, Req> = Result<End<S, Req>, Rest<S, A, R, C, L, Req>>;

/// How a call ends.
type End<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

/// What the layers make of a call, from its begin or from the end of its first attempt on.
pub(super) type Rest<S, A, R, C, L, Req> = FallbackFuture<Retry<Attempts<S, C, L>, R>, A, Req>;

impl<T, Req, K> Held<T, Req, K> {
    #[inline(always)]
    pub(super) fn new(
        shared: Share<T>,
        epoch: u64,
        began: Instant,
        request: Option<Req>,
        kept: K,
    ) -> Self {
        Self {
            shared,
            epoch,
            began,
            request,
            kept: Some(kept),
            phase: Phase::Begun,
        }
    }
}

impl<S, A, R, C, L, Req, K> Held<Shared<S, A, R, C, L>, Req, K> {
    /// Somebody waits for it.
    #[inline(always)]
    pub(super) fn pend(&mut self) {
        if self.phase == Phase::Begun {
            self.phase = Phase::Pended;
        }
    }

    /// It is panicking, and counted at once.
    #[cold]
    pub(super) fn panics(&mut self) {
        if let Phase::Begun | Phase::Pended = self.phase {
            self.phase = Phase::Panicked;
            drop(self.permit());
        }
    }

    /// Given up: it is counted, unless it was, and its slot is given back when that is dropped.
    #[cold]
    pub(super) fn cancel(&mut self) -> Option<slots::Permit> {
        if let Phase::Over { .. } = self.phase {
            return None;
        }
        let slot = self.shared.slots.permit();
        self.panics();
        self.phase = Phase::Over { pended: true };
        Some(slot)
    }

    /// What it has of the breaker.
    fn permit(&self) -> Permit {
        self.shared.breaker.permit(self.epoch, self.began)
    }
}

impl<S, A, R, C, L, Req> Held<Shared<S, A, R, C, L>, Req, A::Kept>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error> + Clone,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    /// The attempt is over: what is to become of its `result`.
    #[inline(always)]
    pub(super) fn end(&mut self, result: &End<S, Req>) -> Verdict {
        match self.phase {
            Phase::Begun => self.finish(false, result),
            _ => self.end_late(result),
        }
    }

    #[inline(never)]
    fn end_late(&mut self, result: &End<S, Req>) -> Verdict {
        assert!(self.phase == Phase::Pended, "polled after completion");
        self.finish(true, result)
    }

    #[inline(always)]
    fn finish(&mut self, pended: bool, result: &End<S, Req>) -> Verdict {
        let panics = Panics(self);
        let outcome = panics.0.shared.classify.classify(result.as_ref());
        mem::forget(panics);
        let Shared { slots, breaker, .. } = &*self.shared;
        self.phase = Phase::Over { pended };
        slots.give_back();
        if outcome == Outcome::Success {
            let (counted, now) = breaker.succeeded(self.epoch, self.began, pended);
            if counted {
                return self.judge(result, now);
            }
        }
        self.record(outcome, result, pended)
    }

    /// Where it is up to the breaker what comes of the outcome.
    #[cold]
    fn record(&mut self, outcome: Outcome, result: &End<S, Req>, pended: bool) -> Verdict {
        self.permit().end(pended, outcome);
        let now = match pended {
            true => clock::end(),
            false => clock::end_as_known(),
        };
        self.judge(result, now)
    }

    #[inline(always)]
    fn judge(&mut self, result: &End<S, Req>, now: Moment) -> Verdict {
        let shared = &*self.shared;
        let Ok(response) = result else {
            return Verdict::Failed;
        };
        let policy = &shared.retry.policy;
        policy.settings.account.deposit(now);
        let decision = match &self.request {
            Some(request) => policy.rules.decide(request, Ok(response)),
            None => Decision::Done,
        };
        if !matches!(decision, Decision::Done) {
            return Verdict::Again(Box::new(decision));
        }
        if shared.answer.applies(Ok(response)) {
            return Verdict::Answer;
        }
        if let Some(kept) = self.kept.take() {
            shared.answer.passes(kept, response);
        }
        Verdict::Pass
    }

    /// Goes on as the layers do: what the call ends with, or what they make of it.
    #[cold]
    pub(super) fn go_on(
        &mut self,
        verdict: Verdict,
        result: End<S, Req>,
    ) -> Next<S, A, R, C, L, Req> {
        let decision = match verdict {
            Verdict::Pass => return Ok(result),
            Verdict::Answer => return Err(self.answer(result)),
            Verdict::Again(decision) => Some(*decision),
            Verdict::Failed => None,
        };
        let pended = self.phase == Phase::Over { pended: true };
        let shared = &*self.shared;
        let (retry, request) = (shared.retry.share(), self.request.take());
        let mut plan = Plan::resume(retry, request, self.began, pended);
        let ended = match decision {
            Some(decision) => plan.retry(result, Some(decision)),
            None => plan.another(result),
        };
        let Some(result) = ended else {
            let call = RetryFuture::again(plan);
            let kept = self.kept.take().expect(KEPT);
            let (answer, who) = (shared.answer.along(), shared.who.clone());
            return Err(FallbackFuture::calling(call, kept, answer, who));
        };
        drop(plan);
        if shared.answer.applies(result.as_ref()) {
            return Err(self.answer(result));
        }
        if let Ok(response) = &result {
            let kept = self.kept.take().expect(KEPT);
            shared.answer.passes(kept, response);
        }
        Ok(result)
    }

    /// As a fallback does.
    fn answer(&mut self, result: End<S, Req>) -> Rest<S, A, R, C, L, Req> {
        let shared = &*self.shared;
        let answer = shared.answer.answer(self.kept.take().expect(KEPT), result);
        FallbackFuture::answering(answer, shared.answer.along(), shared.who.clone())
    }
}

/// Kept while an attempt runs, and while its result is classified: a panic is counted at once.
pub(super) struct Panics<'a, S, A, R, C, L, Req, K>(
    pub(super) &'a mut Held<Shared<S, A, R, C, L>, Req, K>,
);

impl<S, A, R, C, L, Req, K> Drop for Panics<'_, S, A, R, C, L, Req, K> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.panics();
    }
}

/// What is to become of the first attempt's result.
pub(super) enum Verdict {
    /// It goes to the caller.
    Pass,
    /// The fallback answers in its place.
    Answer,
    /// It is a response that is tried again.
    Again(Box<Decision>),
    /// It is an error.
    Failed,
}

const KEPT: &str = "kept for the whole call";
