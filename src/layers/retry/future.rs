use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Rules;
use super::plan::{BoxAgain, CallResult, Plan};
use crate::clock::{self, Sleep};

pin_project! {
    /// The future of a [`Retry`](super::Retry).
    pub struct RetryFuture<S, Req, R>
    where
        S: Service<Req>,
    {
        // `None` if the first attempt is the only one.
        plan: Option<Plan<S, Req, R>>,
        // In a box, for most calls need none, and the layers around move what is here.
        again: Option<BoxAgain<S, Req>>,
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
    #[inline]
    pub(super) fn new(plan: Option<Plan<S, Req, R>>, call: impl FnOnce() -> S::Future) -> Self {
        Self {
            state: State::Attempting { attempt: call() },
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        if let StateProj::Attempting { attempt } = this.state.as_mut().project() {
            let result = ready!(clock::poll(|| attempt.poll(cx)));
            let retry = match this.plan {
                Some(plan) => plan.another(result, this.again),
                None => Err(result),
            };
            match retry {
                Ok(timer) => this.state.set(State::Waiting { timer }),
                Err(result) => return Poll::Ready(self.finish(result)),
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
    #[inline]
    fn finish(self: Pin<&mut Self>, result: CallResult<S, Req>) -> CallResult<S, Req> {
        let this = self.project();
        *this.plan = None;
        if this.again.is_some() {
            *this.again = None;
        }
        result
    }

    /// From the first wait on.
    fn poll_again(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult<S, Req>> {
        let mut this = self.project();
        loop {
            let plan = this.plan.as_mut().expect("polled after completion");
            let next = match this.state.as_mut().project() {
                StateProj::Attempting { attempt } => {
                    let result = ready!(clock::poll(|| attempt.poll(cx)));
                    match plan.another(result, this.again) {
                        Ok(timer) => State::Waiting { timer },
                        Err(result) => return Poll::Ready(result),
                    }
                }
                StateProj::Waiting { timer } => {
                    ready!(timer.as_mut().poll(cx));
                    State::Readying { timer: None }
                }
                StateProj::Readying { timer } => {
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
