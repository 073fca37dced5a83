use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::Service;

use super::{Decision, RetryLayer, Rules};
use crate::algo::backoff::Waits;
use crate::budget::{RetryBudget, Token, Underway};
use crate::clock::{self, Sleep};
use crate::deadline::{Deadline, poll_ready_in_time};
use crate::observe::Event;
use crate::rng::ThreadRng;

pin_project! {
    /// The future of a [`Retry`](super::Retry).
    pub struct RetryFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        // `None` if one attempt is all that is allowed.
        plan: Option<Plan<S, Req, R>>,
        // What the peer said last. It is the answer if the next attempt is never made or is refused.
        kept: Option<Result<S::Response, S::Error>>,
        // The attempt's that is coming or under way, spent once that has begun.
        token: Option<Token>,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    // Attempting ─▶ Waiting ─▶ Readying ─▶ Attempting …
    #[project = StateProj]
    enum State<F> {
        Attempting {
            #[pin]
            attempt: F,
        },
        Waiting {
            #[pin]
            timer: Sleep,
        },
        Readying {
            // The deadline's, registered only once the inner service is pending.
            #[pin]
            timer: Option<Sleep>,
        },
    }
}

impl<S: Service<Req>, Req, R> RetryFuture<S, Req, R> {
    pub(super) fn new(attempt: S::Future, plan: Option<Plan<S, Req, R>>) -> Self {
        Self {
            plan,
            kept: None,
            token: None,
            state: State::Attempting { attempt },
        }
    }
}

impl<S, Req, R> Future for RetryFuture<S, Req, R>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.as_mut().poll_answer(cx));
        // A finished call holds nothing, however long its future is kept.
        let this = self.project();
        *this.plan = None;
        *this.kept = None;
        *this.token = None;
        Poll::Ready(result)
    }
}

impl<S, Req, R> RetryFuture<S, Req, R>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Attempting { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    let Some(plan) = this.plan else {
                        return Poll::Ready(result);
                    };
                    if plan.is_refusal(&result) {
                        let Some(kept) = this.kept.take() else {
                            return Poll::Ready(result);
                        };
                        // The peer never saw the attempt: its token goes back into the budget.
                        if let Some(token) = this.token {
                            token.spent = false;
                        }
                        return Poll::Ready(kept);
                    }
                    // Over is over: its place is free for the next.
                    *this.token = None;
                    let Some((wait, token)) = plan.another(&result) else {
                        return Poll::Ready(result);
                    };
                    *this.kept = Some(result);
                    *this.token = token;
                    State::Waiting {
                        timer: clock::sleep(wait),
                    }
                }
                StateProj::Waiting { timer } => {
                    ready!(timer.poll(cx));
                    State::Readying { timer: None }
                }
                StateProj::Readying { timer } => {
                    let plan = this.plan.as_mut().expect("polled after completion");
                    let Some(request) = ready!(plan.poll_ready(timer, cx)) else {
                        let kept = this.kept.take().expect("what an attempt ended with");
                        return Poll::Ready(kept);
                    };
                    if let Some(token) = this.token {
                        token.spent = true;
                    }
                    let attempt = plan.inner.call(request);
                    State::Attempting { attempt }
                }
            };
            this.state.set(next);
        }
    }
}

/// What further attempts need.
pub(super) struct Plan<S, Req, R> {
    policy: Arc<RetryLayer<R>>,
    inner: S,
    /// `None` if it was sent itself: no attempt can follow.
    request: Option<Req>,
    /// The number of the last attempt, 1 for the first.
    attempt: u32,
    waits: Waits,
    _underway: Option<Underway>,
}

impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req>,
    R: Rules<Req, S::Response, S::Error>,
{
    pub(super) fn new(policy: Arc<RetryLayer<R>>, inner: S, request: Option<Req>) -> Self {
        Self {
            _underway: policy.budget.as_ref().map(RetryBudget::begin),
            policy,
            inner,
            request,
            attempt: 1,
            waits: Waits::default(),
        }
    }

    fn is_refusal(&self, result: &Result<S::Response, S::Error>) -> bool {
        matches!(result, Err(error) if self.policy.rules.is_refusal(error))
    }

    /// How long to wait before the next attempt, and what it takes from the budget; `None` if `result` is final.
    ///
    /// A first attempt pays into the budget here and not when it is made: a peer that never saw it, because a layer
    /// inside refused it, shall not be sent retries for it.
    fn another(
        &mut self,
        result: &Result<S::Response, S::Error>,
    ) -> Option<(Duration, Option<Token>)> {
        let policy = &*self.policy;
        let now = clock::now();
        if let (1, Some(budget)) = (self.attempt, &policy.budget) {
            budget.deposit(now);
        }
        let Decision::Retry { after } =
            policy.rules.decide(self.request.as_ref()?, result.as_ref())
        else {
            return None;
        };
        if after.is_some_and(|hint| hint > policy.longest_hint) {
            return None;
        }
        let own = policy.backoff.next(&mut self.waits, &mut ThreadRng);
        let wait = own.max(after.unwrap_or_default());
        if Deadline::current().is_some_and(|deadline| deadline.remaining(now) <= wait) {
            return None;
        }
        // Last, so that no token is taken for an attempt that something else forbids.
        let token = match &policy.budget {
            None => None,
            Some(budget) => {
                let token = budget.withdraw(now);
                if token.is_none() {
                    let retry = &*policy.name;
                    policy.observer.emit(&Event::BudgetExhausted { retry });
                    return None;
                }
                token
            }
        };
        self.attempt += 1;
        policy.observer.emit(&Event::Retrying {
            retry: &policy.name,
            attempt: self.attempt,
            wait,
        });
        Some((wait, token))
    }

    /// The request to send, once the inner service is ready; `None` if it failed or the deadline has passed.
    fn poll_ready(
        &mut self,
        timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Req>> {
        let ready = ready!(poll_ready_in_time(&mut self.inner, timer, cx));
        Poll::Ready(if ready { self.take_request() } else { None })
    }

    /// A copy of the request, or itself where this is the last attempt.
    fn take_request(&mut self) -> Option<Req> {
        let copy = match &self.request {
            Some(request) if self.attempt < self.policy.attempts => {
                self.policy.rules.replay(request, self.attempt)
            }
            _ => None,
        };
        copy.or_else(|| self.request.take())
    }
}
