use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::Service;

use super::budget::Token;
use super::service::Shared;
use super::{Decision, Rules};
use crate::algo::lanes::Share;
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::observe::Event;
use crate::rng::ThreadRng;

pin_project! {
    /// The future of a [`Retry`](super::Retry).
    pub struct RetryFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        // `None` if the first attempt is the only one.
        plan: Option<Plan<S, Req, R>>,
        // In a box, for most calls need none, and the layers around move what is here.
        again: Option<Box<Again<S, S::Response, S::Error>>>,
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
        Waiting { timer: Pin<Box<Sleep>> },
        // The timer is the deadline's, registered only once the inner service is pending.
        Readying { timer: Option<Pin<Box<Sleep>>> },
    }
}

impl<S: Service<Req>, Req, R> RetryFuture<S, Req, R> {
    pub(super) fn new(attempt: S::Future, plan: Option<Plan<S, Req, R>>) -> Self {
        Self {
            plan,
            again: None,
            state: State::Attempting { attempt },
        }
    }
}

impl<S, Req, R> Future for RetryFuture<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.as_mut().poll_answer(cx));
        // A finished call holds nothing, however long its future is kept.
        let this = self.project();
        *this.plan = None;
        *this.again = None;
        Poll::Ready(result)
    }
}

impl<S, Req, R> RetryFuture<S, Req, R>
where
    S: Service<Req> + Clone,
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
                    let result = ready!(clock::poll(|| attempt.poll(cx)));
                    let Some(plan) = this.plan else {
                        return Poll::Ready(result);
                    };
                    if plan.is_refusal(&result) {
                        let Some(mut again) = this.again.take() else {
                            return Poll::Ready(result);
                        };
                        // The peer never saw the attempt: its token goes back into the budget.
                        if let Some(token) = &mut again.token {
                            token.spent = false;
                        }
                        return Poll::Ready(again.kept);
                    }
                    let Some((wait, token)) = plan.another(&result) else {
                        return Poll::Ready(result);
                    };
                    match this.again {
                        Some(again) => {
                            again.kept = result;
                            again.token = token;
                        }
                        None => {
                            *this.again = Some(Box::new(Again {
                                inner: plan.shared.inner(),
                                kept: result,
                                token,
                            }));
                        }
                    }
                    State::Waiting {
                        timer: Box::pin(clock::sleep(wait)),
                    }
                }
                StateProj::Waiting { timer } => {
                    ready!(timer.as_mut().poll(cx));
                    State::Readying { timer: None }
                }
                StateProj::Readying { timer } => {
                    let plan = this.plan.as_mut().expect("polled after completion");
                    let again = this.again.as_mut().expect("an attempt has ended");
                    let Some(request) = ready!(plan.poll_ready(&mut again.inner, timer, cx)) else {
                        let again = this.again.take().expect("an attempt has ended");
                        return Poll::Ready(again.kept);
                    };
                    if let Some(token) = &mut again.token {
                        token.spent = true;
                    }
                    let attempt = again.inner.call(request);
                    State::Attempting { attempt }
                }
            };
            this.state.set(next);
        }
    }
}

/// What a call has that is tried again.
struct Again<S, Res, E> {
    inner: S,
    /// What the peer said last. It is the answer if the next attempt is never made or is refused.
    kept: Result<Res, E>,
    /// The attempt's that is coming or under way, spent once that has begun.
    token: Option<Token>,
}

/// What further attempts need.
pub(super) struct Plan<S, Req, R> {
    shared: Share<Shared<S, R>>,
    /// `None` if it was sent itself: no attempt can follow.
    request: Option<Req>,
    /// The number of the last attempt, 1 for the first.
    attempt: u32,
    /// The last wait of the backoff.
    wait: Duration,
}

impl<S, Req, R> Plan<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    pub(super) fn new(shared: Share<Shared<S, R>>, request: Option<Req>) -> Self {
        Self {
            shared,
            request,
            attempt: 1,
            wait: Duration::ZERO,
        }
    }

    fn is_refusal(&self, result: &Result<S::Response, S::Error>) -> bool {
        matches!(result, Err(error) if self.shared.policy.rules.is_refusal(error))
    }

    /// How long to wait before the next attempt, and what it takes from the budget; `None` if `result` is final.
    ///
    /// A first attempt pays into the budget here and not when it is made: a peer that never saw it, because a layer
    /// inside refused it, shall not be sent retries for it.
    fn another(
        &mut self,
        result: &Result<S::Response, S::Error>,
    ) -> Option<(Duration, Option<Token>)> {
        let policy = &self.shared.policy;
        if let (1, Some(budget)) = (self.attempt, &policy.budget) {
            budget.deposit(clock::end());
        }
        let Decision::Retry { after } =
            policy.rules.decide(self.request.as_ref()?, result.as_ref())
        else {
            return None;
        };
        if after.is_some_and(|hint| hint > policy.longest_hint) {
            return None;
        }
        self.wait = policy.backoff.wait(self.attempt, self.wait, &mut ThreadRng);
        let wait = self.wait.max(after.unwrap_or_default());
        let now = clock::end();
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
        inner: &mut S,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Req>> {
        let deadline = Deadline::current();
        if deadline.is_some_and(|deadline| deadline.has_passed(clock::now())) {
            return Poll::Ready(None);
        }
        match inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(self.take_request()),
            Poll::Ready(Err(_)) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(clock::until(deadline.instant())));
        timer.as_mut().poll(cx).map(|()| None)
    }

    /// A copy of the request, or itself where this is the last attempt.
    fn take_request(&mut self) -> Option<Req> {
        let copy = match &self.request {
            Some(request) if self.attempt < self.shared.policy.attempts => {
                self.shared.policy.rules.replay(request, self.attempt)
            }
            _ => None,
        };
        copy.or_else(|| self.request.take())
    }
}
