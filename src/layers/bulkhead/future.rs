use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Acquire, Hold, Permit};
use crate::error::Rejected;

pin_project! {
    /// The future of a [`BulkheadService`](super::BulkheadService).
    #[derive(Debug)]
    pub struct BulkheadFuture<S, Req, F, H> {
        #[pin]
        state: State<S, Req, F>,
        hold: Option<H>,
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

impl<S, Req, F, H> BulkheadFuture<S, Req, F, H> {
    pub(super) fn new(acquire: Acquire, inner: S, request: Req, hold: H) -> Self {
        let call = Some((inner, request));
        Self {
            state: State::Waiting { acquire, call },
            hold: Some(hold),
        }
    }

    pub(super) fn refused(rejected: Rejected) -> Self {
        let refused = Some(rejected);
        Self {
            state: State::Over { refused },
            hold: None,
        }
    }
}

impl<S, Req, H> Future for BulkheadFuture<S, Req, S::Future, H>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Response, S::Error>;

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
                        break (Err(error), None);
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
        // The slot ends with the call, not when somebody drops this future.
        state.set(State::Over { refused: None });
        Poll::Ready(result.map(|response| {
            let hold = this.hold.take().expect("one response a call");
            hold.hold(response, permit.expect("granted"))
        }))
    }
}
