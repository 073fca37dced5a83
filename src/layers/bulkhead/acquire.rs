use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::Permit;
use super::handle::Bulkhead;
use crate::error::Rejected;
use crate::slots::Wait;

pin_project! {
    /// The wait for a [`Permit`]; see [`Bulkhead::acquire`]. Dropped, it leaves the queue.
    #[derive(Debug)]
    #[must_use = "a slot or a place in the queue is held until this is awaited or dropped"]
    pub struct Acquire {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        Waiting {
            #[pin]
            wait: Wait,
            bulkhead: Bulkhead,
        },
        Over { result: Option<Result<Permit, Rejected>> },
    }
}

impl Acquire {
    pub(super) fn over(result: Result<Permit, Rejected>) -> Self {
        let result = Some(result);
        Self {
            state: State::Over { result },
        }
    }

    pub(super) fn waiting(wait: Wait, bulkhead: Bulkhead) -> Self {
        Self {
            state: State::Waiting { wait, bulkhead },
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (result, bulkhead) = match state.as_mut().project() {
            StateProj::Waiting { wait, bulkhead } => (ready!(wait.poll(cx)), bulkhead.clone()),
            StateProj::Over { result } => {
                return Poll::Ready(result.take().expect("polled after completion"));
            }
        };
        // The place is left before anybody is told.
        state.set(State::Over { result: None });
        Poll::Ready(result.map_err(|reason| bulkhead.refused(reason)))
    }
}
