use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Rules;
use super::plan::{BoxAgain, CallResult, Plan};
use crate::clock;

pin_project! {
    /// The future of a [`Retry`](super::Retry).
    pub struct RetryFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        // `None` if the first attempt is the only one.
        plan: Option<Plan<S, Req, R>>,
        // `None` until the first attempt has ended. In a box, for most calls need none, and the layers around move what
        // is here.
        again: Option<BoxAgain<S, Req>>,
        // Attempting ─▶ waiting, with a timer in `again` ─▶ readying the inner service ─▶ attempting …
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
            again: None,
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
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        if this.again.is_none() {
            let attempt = this.attempt.as_mut().as_pin_mut();
            let attempt = attempt.expect("polled after completion");
            let result = ready!(clock::poll(|| attempt.poll(cx)));
            let last = match this.plan {
                Some(plan) => plan.another(result, this.again),
                None => Some(result),
            };
            match last {
                Some(result) => return Poll::Ready(self.finish(result)),
                None => this.attempt.set(None),
            }
        }
        let result = ready!(self.as_mut().poll_again(cx));
        Poll::Ready(self.finish(result))
    }
}

impl<S, Req, R> RetryFuture<S, Req, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error>,
{
    /// A finished call holds nothing, however long its future is kept.
    #[inline(always)]
    fn finish(self: Pin<&mut Self>, result: CallResult<S, Req>) -> CallResult<S, Req> {
        let this = self.project();
        *this.plan = None;
        if this.again.is_some() {
            *this.again = None;
        }
        result
    }

    /// From the first wait on.
    #[cold]
    fn poll_again(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult<S, Req>> {
        let mut this = self.project();
        loop {
            let plan = this.plan.as_mut().expect("polled after completion");
            if let Some(attempt) = this.attempt.as_mut().as_pin_mut() {
                let result = ready!(clock::poll(|| attempt.poll(cx)));
                this.attempt.set(None);
                if let Some(result) = plan.another(result, this.again) {
                    return Poll::Ready(result);
                }
            }
            let again = this.again.as_mut().expect("an attempt has ended");
            if let Some(wait) = &mut again.wait {
                ready!(wait.as_mut().poll(cx));
                again.wait = None;
            }
            let Some(request) = ready!(plan.poll_ready(again, cx)) else {
                let again = this.again.take().expect("an attempt has ended");
                return Poll::Ready(again.kept);
            };
            if let Some(token) = &mut again.token {
                token.spent = true;
            }
            let attempt = again.inner.call(request);
            this.attempt.set(Some(attempt));
        }
    }
}
