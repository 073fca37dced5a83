use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::handle::Permit;
use crate::classify::Classify;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`ThrottleService`](super::ThrottleService).
    #[derive(Debug)]
    pub struct ThrottleFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, C> {
        Running {
            #[pin]
            inner: F,
            permit: Option<Permit>,
            classify: C,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl<F, C> ThrottleFuture<F, C> {
    pub(super) fn running(inner: F, permit: Permit, classify: C) -> Self {
        Self {
            state: State::Running {
                inner,
                permit: Some(permit),
                classify,
            },
        }
    }

    pub(super) fn refused(rejected: Rejected) -> Self {
        Self {
            state: State::Refused {
                rejected: Some(rejected),
            },
        }
    }
}

impl<F, C, Res, E> Future for ThrottleFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
    C: Classify<Res, E>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Running {
                inner,
                permit,
                classify,
            } => {
                let result = ready!(inner.poll(cx));
                let permit = permit.take().expect("polled after completion");
                permit.record(classify.classify(result.as_ref()));
                Poll::Ready(result)
            }
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                Poll::Ready(Err(rejected.into()))
            }
        }
    }
}
