use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Rules;
use super::plan::Plan;
use crate::clock;

pin_project! {
    /// The future of a [`Retry`](super::Retry).
    pub struct RetryFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        // `None` if the first attempt is the only one, and once the call is over.
        plan: Option<Plan<S, Req, R>>,
        // Attempting ─▶ waiting, with a timer in the plan ─▶ readying the inner service ─▶ attempting …
        #[pin]
        attempt: Option<S::Future>,
    }
}

impl<S: Service<Req>, Req, R> RetryFuture<S, Req, R> {
    #[inline(always)]
    pub(super) fn new(plan: Option<Plan<S, Req, R>>, attempt: S::Future) -> Self {
        Self {
            attempt: Some(attempt),
            plan,
        }
    }

    /// Of a call that was begun elsewhere, and is tried again.
    pub(crate) fn again(plan: Plan<S, Req, R>) -> Self {
        Self {
            attempt: None,
            plan: Some(plan),
        }
    }
}

impl<S, Req, R> Future for RetryFuture<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(attempt) = this.attempt.as_mut().as_pin_mut() {
                let Poll::Ready(result) = clock::poll(|| attempt.poll(cx)) else {
                    if let Some(plan) = this.plan {
                        plan.pended = true;
                    }
                    return Poll::Pending;
                };
                // An attempt that is over holds nothing, and no more does a call, however long its future is kept.
                this.attempt.set(None);
                let last = match this.plan {
                    Some(plan) => plan.another(result),
                    None => Some(result),
                };
                if let Some(result) = last {
                    *this.plan = None;
                    return Poll::Ready(result);
                }
            }
            let plan = this.plan.as_mut().expect("polled after completion");
            match ready!(plan.poll_next(cx)) {
                Ok(attempt) => this.attempt.set(Some(attempt)),
                Err(kept) => {
                    *this.plan = None;
                    return Poll::Ready(kept);
                }
            }
        }
    }
}
