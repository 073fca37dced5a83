use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::CopyRequest;
use super::delay::Sample;
use super::plan::{Plan, Verdict};
use crate::budget::Paid;
use crate::classify::Classify;
use crate::clock::{self, Sleep};

pin_project! {
    /// The future of a [`Hedge`](super::Hedge).
    pub struct HedgeFuture<S, Req, C, K>
    where
        S: Service<Req>,
    {
        #[pin]
        primary: Option<S::Future>,
        // Allocated only for a hedge: how many there may be is known at run time alone, and each is pinned.
        hedges: Vec<Sent<S::Future>>,
        // What the first attempt failed with. It is the answer if no other attempt has one.
        failed: Option<Result<S::Response, S::Error>>,
        // The measurement of the first attempt, where the delay depends on it.
        sample: Option<Sample>,
        // `None` if one attempt is all that is allowed.
        plan: Option<Plan<S, Req, C, K>>,
        #[pin]
        next: Next,
    }
}

struct Sent<F> {
    attempt: Pin<Box<F>>,
    number: u32,
    paid: Paid,
}

pin_project! {
    // The next attempt: Waiting ─▶ Due ─▶ Readying ─▶ Waiting … Over
    #[project = NextProj]
    enum Next {
        Waiting {
            // Registered only once the attempts under way are pending.
            #[pin]
            timer: Option<Sleep>,
        },
        Due,
        Readying {
            paid: Paid,
            // The deadline's, made only once the inner service is pending.
            timer: Option<Pin<Box<Sleep>>>,
        },
        Over,
    }
}

impl<S, Req, C, K> HedgeFuture<S, Req, C, K>
where
    S: Service<Req>,
    C: CopyRequest<Req>,
    K: Classify<S::Response, S::Error>,
{
    pub(super) fn new(
        primary: S::Future,
        plan: Option<Plan<S, Req, C, K>>,
        sample: Option<Sample>,
    ) -> Self {
        let next = match plan.as_ref().is_some_and(Plan::may_follow) {
            true => Next::Waiting { timer: None },
            false => Next::Over,
        };
        Self {
            primary: Some(primary),
            hedges: Vec::new(),
            failed: None,
            sample,
            plan,
            next,
        }
    }
}

impl<S, Req, C, K> Future for HedgeFuture<S, Req, C, K>
where
    S: Service<Req>,
    C: CopyRequest<Req>,
    K: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut result = ready!(self.as_mut().poll_answer(cx));
        // The losers end now, and a finished call holds nothing, however long its future is kept.
        let mut this = self.project();
        if let Some(plan) = this.plan {
            plan.mark(&mut result);
        }
        this.primary.set(None);
        this.hedges.clear();
        this.next.set(Next::Over);
        *this.failed = None;
        *this.sample = None;
        *this.plan = None;
        Poll::Ready(result)
    }
}

impl<S, Req, C, K> HedgeFuture<S, Req, C, K>
where
    S: Service<Req>,
    C: CopyRequest<Req>,
    K: Classify<S::Response, S::Error>,
{
    fn poll_answer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.project();
        if let Some(primary) = this.primary.as_mut().as_pin_mut() {
            if let Poll::Ready(result) = primary.poll(cx) {
                let Some(plan) = this.plan else {
                    return Poll::Ready(result);
                };
                let verdict = plan.judge(&result);
                match verdict {
                    Verdict::Refused => plan.refused(),
                    _ => plan.count(),
                }
                if let Some(sample) = this.sample.take() {
                    sample.end(verdict == Verdict::Answer);
                }
                if verdict == Verdict::Answer {
                    return Poll::Ready(result);
                }
                this.primary.set(None);
                *this.failed = Some(result);
                this.next.as_mut().after(verdict);
            }
        }
        let Some(plan) = this.plan else {
            return Poll::Pending;
        };
        loop {
            let mut at = 0;
            while let Some(hedge) = this.hedges.get_mut(at) {
                let Poll::Ready(result) = hedge.attempt.as_mut().poll(cx) else {
                    at += 1;
                    continue;
                };
                let verdict = plan.judge(&result);
                match (verdict, &mut hedge.paid) {
                    (Verdict::Answer, _) => {
                        plan.won(hedge.number);
                        return Poll::Ready(result);
                    }
                    (Verdict::Refused, paid) => {
                        plan.refused();
                        // The peer never saw it.
                        if let Some(token) = paid {
                            token.spent = false;
                        }
                    }
                    _ => {}
                }
                drop(this.hedges.remove(at));
                this.next.as_mut().after(verdict);
            }
            match this.next.as_mut().poll(plan, cx) {
                Poll::Ready(Some((attempt, paid))) => this.hedges.push(Sent {
                    attempt: Box::pin(attempt),
                    number: plan.attempt(),
                    paid,
                }),
                Poll::Ready(None) => {
                    plan.give_up();
                    return match this.failed.take_if(|_| this.hedges.is_empty()) {
                        Some(failed) => Poll::Ready(failed),
                        None => Poll::Pending,
                    };
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Next {
    /// What becomes of the next attempt after one that has failed.
    fn after(mut self: Pin<&mut Self>, verdict: Verdict) {
        match (verdict, self.as_mut().project()) {
            (Verdict::Failed, NextProj::Waiting { .. }) => self.set(Self::Due),
            (Verdict::Refused | Verdict::Overloaded, _) => self.set(Self::Over),
            _ => {}
        }
    }

    /// The next attempt, once it is time for it; `None` if there is none any more.
    fn poll<S, Req, C, K>(
        mut self: Pin<&mut Self>,
        plan: &mut Plan<S, Req, C, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(S::Future, Paid)>>
    where
        S: Service<Req>,
        C: CopyRequest<Req>,
        K: Classify<S::Response, S::Error>,
    {
        loop {
            let next = match self.as_mut().project() {
                NextProj::Waiting { mut timer } => {
                    if timer.is_none() {
                        timer.set(Some(clock::until(plan.due())));
                    }
                    if let Some(timer) = timer.as_pin_mut() {
                        ready!(timer.poll(cx));
                    }
                    Self::Due
                }
                NextProj::Due => match plan.pay() {
                    Some(paid) => Self::Readying { paid, timer: None },
                    None => Self::Over,
                },
                NextProj::Readying { paid, timer } => match ready!(plan.poll_attempt(timer, cx)) {
                    Some(attempt) => {
                        let mut paid = paid.take();
                        if let Some(token) = &mut paid {
                            token.spent = true;
                        }
                        self.set(match plan.may_follow() {
                            true => Self::Waiting { timer: None },
                            false => Self::Over,
                        });
                        return Poll::Ready(Some((attempt, paid)));
                    }
                    None => Self::Over,
                },
                NextProj::Over => return Poll::Ready(None),
            };
            self.set(next);
        }
    }
}
