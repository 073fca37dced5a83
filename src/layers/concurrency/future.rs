use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Permit;
use super::acquire::Acquire;
use crate::classify::Classify;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`ConcurrencyService`](super::ConcurrencyService).
    #[derive(Debug)]
    pub struct ConcurrencyFuture<S, Req, F, C> {
        #[pin]
        state: State<S, Req, F>,
        classify: Option<C>,
    }
}

pin_project! {
    // Waiting (for a slot) -> Readying (the inner service) -> Running -> Over
    #[project = StateProj]
    #[derive(Debug)]
    enum State<S, Req, F> {
        Waiting {
            #[pin]
            acquire: Acquire,
            call: Option<(S, Req)>,
        },
        Readying {
            call: Option<(S, Req)>,
            permit: Option<Permit>,
        },
        // The work is dropped before its slot.
        Running {
            #[pin]
            inner: F,
            permit: Option<Permit>,
        },
        Over { refused: Option<Rejected> },
    }
}

impl<S, Req, F, C> ConcurrencyFuture<S, Req, F, C> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req, classify: C) -> Self {
        let call = Some((inner, request));
        Self {
            state: State::Waiting { acquire, call },
            classify: Some(classify),
        }
    }

    pub(super) fn refused(rejected: Rejected) -> Self {
        let refused = Some(rejected);
        Self {
            state: State::Over { refused },
            classify: None,
        }
    }
}

impl<S, Req, C> Future for ConcurrencyFuture<S, Req, S::Future, C>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        let (result, permit) = loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting { acquire, call } => match ready!(acquire.poll(cx)) {
                    Ok(permit) => State::Readying {
                        call: call.take(),
                        permit: Some(permit),
                    },
                    Err(rejected) => break (Err(rejected.into()), None),
                },
                StateProj::Readying { call, permit } => {
                    let (inner, _) = call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break (Err(error), permit.take());
                    }
                    let (mut inner, request) = call.take().expect("not called yet");
                    State::Running {
                        inner: inner.call(request),
                        permit: permit.take(),
                    }
                }
                StateProj::Running { inner, permit } => {
                    break (ready!(inner.poll(cx)), permit.take());
                }
                StateProj::Over { refused } => {
                    let rejected = refused.take().expect("polled after completion");
                    break (Err(rejected.into()), None);
                }
            };
            state.set(next);
        };
        // The work ends before its slot, and the slot with the call, not when somebody drops this future.
        state.set(State::Over { refused: None });
        if let (Some(permit), Some(classify)) = (permit, this.classify) {
            permit.record(classify.classify(result.as_ref()));
        }
        Poll::Ready(result)
    }
}
