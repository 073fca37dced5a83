use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::handle::Acquire;
use super::slots::Permit;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`BulkheadService`](super::BulkheadService).
    #[derive(Debug)]
    pub struct BulkheadFuture<S, Req, F, E> {
        #[pin]
        state: State<S, Req, F, E>,
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
            permit: Permit,
        },
        Over { error: Option<E> },
    }
}

impl<S, Req, F, E> BulkheadFuture<S, Req, F, E> {
    pub(super) fn waiting(acquire: Acquire, inner: S, request: Req) -> Self {
        Self {
            state: State::Waiting {
                acquire: Box::pin(acquire),
                call: Some(Box::new((inner, request))),
            },
        }
    }

    pub(super) fn readying(inner: S, request: Req, permit: Permit) -> Self {
        Self {
            state: State::Readying {
                call: Some(Box::new((inner, request))),
                permit: Some(permit),
            },
        }
    }

    #[inline]
    pub(super) fn running(permit: Permit, call: impl FnOnce() -> F) -> Self {
        Self {
            state: State::Running {
                inner: call(),
                permit,
            },
        }
    }

    pub(super) fn over(error: E) -> Self {
        let error = Some(error);
        Self {
            state: State::Over { error },
        }
    }
}

impl<S, Req> Future for BulkheadFuture<S, Req, S::Future, S::Error>
where
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting { acquire, call } => match ready!(acquire.as_mut().poll(cx)) {
                    Ok(permit) => State::Readying {
                        call: call.take(),
                        permit: Some(permit),
                    },
                    Err(rejected) => break Err(rejected.into()),
                },
                StateProj::Readying { call, permit } => {
                    let (inner, _) = &mut **call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break Err(error);
                    }
                    let (mut inner, request) = *call.take().expect("not called yet");
                    State::Running {
                        permit: permit.take().expect("granted"),
                        inner: inner.call(request),
                    }
                }
                StateProj::Running { inner, .. } => break ready!(inner.poll(cx)),
                StateProj::Over { error } => {
                    break Err(error.take().expect("polled after completion"));
                }
            };
            state.set(next);
        };
        // The slot ends with the call, not when somebody drops this future.
        state.set(State::Over { error: None });
        Poll::Ready(result)
    }
}
