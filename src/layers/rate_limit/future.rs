use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::handle::Acquire;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`RateLimitService`](super::RateLimitService).
    #[derive(Debug)]
    pub struct RateLimitFuture<S, Req, F> {
        #[pin]
        state: State<S, Req, F>,
    }
}

pin_project! {
    // Waiting (for permits) -> Readying (the inner service) -> Running -> Over
    #[project = StateProj]
    #[derive(Debug)]
    enum State<S, Req, F> {
        Waiting {
            #[pin]
            acquire: Acquire,
            call: Option<(S, Req)>,
        },
        Readying { call: Option<(S, Req)> },
        Running {
            #[pin]
            inner: F,
        },
        Over,
    }
}

impl<S, Req, F> RateLimitFuture<S, Req, F> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req) -> Self {
        let call = Some((inner, request));
        Self {
            state: State::Waiting { acquire, call },
        }
    }
}

impl<S, Req> Future for RateLimitFuture<S, Req, S::Future>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting { acquire, call } => match ready!(acquire.poll(cx)) {
                    Ok(()) => State::Readying { call: call.take() },
                    Err(rejected) => break Err(rejected.into()),
                },
                StateProj::Readying { call } => {
                    let (inner, _) = call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break Err(error);
                    }
                    let (mut inner, request) = call.take().expect("not called yet");
                    State::Running {
                        inner: inner.call(request),
                    }
                }
                StateProj::Running { inner } => break ready!(inner.poll(cx)),
                StateProj::Over => unreachable!("polled after completion"),
            };
            state.set(next);
        };
        // What the call held goes now, not when somebody drops this future.
        state.set(State::Over);
        Poll::Ready(result)
    }
}
