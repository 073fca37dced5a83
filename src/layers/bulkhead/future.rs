use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Acquire, Hold, Permit};
use crate::error::Rejected;

pin_project! {
    /// The future of a [`BulkheadService`](super::BulkheadService).
    #[derive(Debug)]
    pub struct BulkheadFuture<S, Req, F, E, H> {
        #[pin]
        state: State<S, Req, F, E>,
        hold: Option<H>,
    }
}

pin_project! {
    // Waiting (for a slot) -> Readying (the inner service) -> Running -> Over
    //
    // What waits is in boxes: most calls do not, and the layers around move what is here.
    #[project = StateProj]
    #[derive(Debug)]
    enum State<S, Req, F, E> {
        Waiting {
            acquire: Pin<Box<Acquire>>,
            call: Option<Box<(S, Req)>>,
        },
        Readying {
            call: Option<Box<(S, Req)>>,
            permit: Option<Permit>,
        },
        // The work is dropped before its slot.
        Running {
            #[pin]
            inner: F,
            permit: Option<Permit>,
        },
        Over { error: Option<E> },
    }
}

impl<S, Req, F, E, H> BulkheadFuture<S, Req, F, E, H> {
    pub(super) fn waiting(acquire: Acquire, inner: S, request: Req, hold: H) -> Self {
        Self {
            state: State::Waiting {
                acquire: Box::pin(acquire),
                call: Some(Box::new((inner, request))),
            },
            hold: Some(hold),
        }
    }

    pub(super) fn readying(inner: S, request: Req, permit: Permit, hold: H) -> Self {
        Self {
            state: State::Readying {
                call: Some(Box::new((inner, request))),
                permit: Some(permit),
            },
            hold: Some(hold),
        }
    }

    #[inline(always)]
    pub(super) fn running(permit: Permit, hold: H, call: impl FnOnce() -> F) -> Self {
        Self {
            state: State::Running {
                inner: call(),
                permit: Some(permit),
            },
            hold: Some(hold),
        }
    }

    pub(super) fn over(error: E) -> Self {
        let error = Some(error);
        Self {
            state: State::Over { error },
            hold: None,
        }
    }
}

impl<S, Req, H> Future for BulkheadFuture<S, Req, S::Future, S::Error, H>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Response, S::Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        let (result, permit) = loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting { acquire, call } => match ready!(acquire.as_mut().poll(cx)) {
                    Ok(permit) => State::Readying {
                        call: call.take(),
                        permit: Some(permit),
                    },
                    Err(rejected) => break (Err(rejected.into()), None),
                },
                StateProj::Readying { call, permit } => {
                    let (inner, _) = &mut **call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break (Err(error), None);
                    }
                    let (mut inner, request) = *call.take().expect("not called yet");
                    State::Running {
                        inner: inner.call(request),
                        permit: permit.take(),
                    }
                }
                StateProj::Running { inner, permit } => {
                    break (ready!(inner.poll(cx)), permit.take());
                }
                StateProj::Over { error } => {
                    let error = error.take().expect("polled after completion");
                    break (Err(error), None);
                }
            };
            state.set(next);
        };
        // The slot ends with the call, not when somebody drops this future.
        state.set(State::Over { error: None });
        Poll::Ready(result.map(|response| {
            let hold = this.hold.take().expect("one response a call");
            hold.hold(response, permit.expect("granted"))
        }))
    }
}
