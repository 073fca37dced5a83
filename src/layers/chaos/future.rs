use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::hooks::Cut;
use crate::clock::{self, Sleep};

pin_project! {
    /// The future of a [`ChaosService`](super::ChaosService).
    #[derive(Debug)]
    pub struct ChaosFuture<F, C, T> {
        #[pin]
        state: State<F, C, T>,
    }
}

pin_project! {
    // Calling ─▶ Delaying ─▶ Over, or Hanging for ever
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, C, T> {
        Calling {
            #[pin]
            inner: F,
            cut: C,
            short: bool,
            delay: Option<Duration>,
        },
        Delaying {
            result: Option<T>,
            #[pin]
            timer: Sleep,
        },
        Hanging,
        Over { result: Option<T> },
    }
}

impl<F, C, T> ChaosFuture<F, C, T> {
    pub(super) fn calling(inner: F, cut: C, short: bool, delay: Option<Duration>) -> Self {
        Self {
            state: State::Calling {
                inner,
                cut,
                short,
                delay,
            },
        }
    }

    pub(super) fn hung() -> Self {
        Self {
            state: State::Hanging,
        }
    }

    pub(super) fn over(result: T, delay: Option<Duration>) -> Self {
        Self {
            state: State::over(result, delay),
        }
    }
}

impl<F, C, T> State<F, C, T> {
    fn over(result: T, delay: Option<Duration>) -> Self {
        let result = Some(result);
        match delay {
            Some(delay) => Self::Delaying {
                result,
                timer: clock::sleep(delay),
            },
            None => Self::Over { result },
        }
    }
}

impl<F, C, Res, E> Future for ChaosFuture<F, C, Result<C::Response, E>>
where
    F: Future<Output = Result<Res, E>>,
    C: Cut<Res>,
{
    type Output = Result<C::Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling {
                    inner,
                    cut,
                    short,
                    delay,
                } => {
                    let result = ready!(inner.poll(cx));
                    State::over(result.map(|response| cut.pass(response, *short)), *delay)
                }
                StateProj::Delaying { result, timer } => {
                    ready!(timer.poll(cx));
                    State::Over {
                        result: result.take(),
                    }
                }
                StateProj::Hanging => return Poll::Pending,
                StateProj::Over { result } => {
                    return Poll::Ready(result.take().expect("polled after completion"));
                }
            };
            // What the call held goes now, not at the end of the delay.
            state.set(next);
        }
    }
}
