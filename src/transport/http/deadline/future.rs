use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::deadline::Scoped;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`SendDeadline`](super::SendDeadline).
    #[derive(Debug)]
    pub struct SendDeadlineFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Running {
            #[pin]
            inner: Scoped<F>,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl<F> SendDeadlineFuture<F> {
    pub(super) fn running(inner: Scoped<F>) -> Self {
        Self {
            state: State::Running { inner },
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

impl<F, Res, E> Future for SendDeadlineFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Running { inner } => inner.poll(cx),
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                Poll::Ready(Err(rejected.into()))
            }
        }
    }
}
