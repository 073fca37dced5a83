use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::Permit;
use crate::classify::Classify;
use crate::clock;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`CircuitBreakerService`](super::CircuitBreakerService).
    pub struct CircuitBreakerFuture<F: Future, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F: Future, C> {
        Running {
            // Before `inner`, so that a cancelled call is counted before what it holds is torn down.
            permit: Option<Permit>,
            classify: C,
            // Whether it has been waited for.
            pended: bool,
            #[pin]
            inner: F,
        },
        Refused { result: Option<F::Output> },
    }
}

impl<F: Future, C> CircuitBreakerFuture<F, C> {
    #[inline(always)]
    pub(super) fn running(permit: Permit, classify: C, inner: F) -> Self {
        Self {
            state: State::Running {
                inner,
                permit: Some(permit),
                classify,
                pended: false,
            },
        }
    }

    #[inline(always)]
    pub(super) fn refused(result: F::Output) -> Self {
        let result = Some(result);
        Self {
            state: State::Refused { result },
        }
    }
}

impl<F, C, Res, E> Future for CircuitBreakerFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
    C: Classify<Res, E>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Running {
                permit,
                classify,
                pended,
                inner,
            } => {
                let panics = Panics(permit);
                let polled = clock::poll(|| inner.poll(cx));
                mem::forget(panics);
                let Poll::Ready(result) = polled else {
                    *pended = true;
                    return Poll::Pending;
                };
                let permit = permit.take().expect("polled after completion");
                permit.end(*pended, classify.classify(result.as_ref()));
                Poll::Ready(result)
            }
            StateProj::Refused { result } => {
                Poll::Ready(result.take().expect("polled after completion"))
            }
        }
    }
}

/// Held while the inner future runs: its panic drops the permit, which counts it at once.
struct Panics<'a>(&'a mut Option<Permit>);

impl Drop for Panics<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.0 = None;
    }
}

impl<F: Future, C> fmt::Debug for CircuitBreakerFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerFuture")
            .finish_non_exhaustive()
    }
}
