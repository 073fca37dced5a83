use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::bound::{Bound, rejected};
use crate::clock::{self, Timer};
use crate::deadline::Deadline;
use crate::error::Rejected;
use crate::observe::Who;
use crate::seldom::Seldom;

pin_project! {
    /// The future of a [`Timeout`](super::Timeout).
    pub struct TimeoutFuture<F: Future> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F: Future> {
        // The inner future is polled first: an answer that is there in time is never thrown away.
        Running {
            #[pin]
            inner: F,
            bound: Bound,
            // Registered only once the inner future is pending.
            timer: Timer,
            who: Who,
        },
        Over { result: Seldom<F::Output> },
    }
}

impl<F: Future> TimeoutFuture<F> {
    #[inline(always)]
    pub(super) fn running(bound: Bound, who: Who, inner: F) -> Self {
        Self {
            state: State::Running {
                inner,
                bound,
                timer: Timer::default(),
                who,
            },
        }
    }

    /// That of no call.
    #[inline(always)]
    pub(crate) fn ended() -> Self {
        let result = Seldom::new(None);
        Self {
            state: State::Over { result },
        }
    }

    #[inline(always)]
    pub(crate) fn over(result: F::Output) -> Self {
        let result = Seldom::new(Some(result));
        Self {
            state: State::Over { result },
        }
    }
}

impl<F, Res, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (inner, bound, timer, who) = match state.as_mut().project() {
            StateProj::Running {
                inner,
                bound,
                timer,
                who,
            } => (inner, bound, timer, who),
            StateProj::Over { result } => {
                return Poll::Ready(result.take().expect("polled after completion"));
            }
        };
        // A deadline can be in force around this future and not have been around the call.
        let outer = Deadline::current();
        if let Some(nearer) = outer.filter(|it| it.instant() < bound.at) {
            bound.at = nearer.instant();
            bound.limit = None;
            timer.stop();
        }
        {
            let _entered = Deadline::at(bound.at).enter_within(outer);
            match inner.poll(cx) {
                // What ends with an error once the time is over ended for that: a layer inside met the same deadline.
                Poll::Ready(Err(_)) if bound.at <= clock::now() => {}
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => {
                    ready!(timer.poll_until(bound.at, cx));
                }
            }
        }
        let rejected = who.tells(rejected(who, bound.reason()));
        // Drops the inner future now, not when the caller drops this one.
        state.set(State::Over {
            result: Seldom::default(),
        });
        Poll::Ready(Err(rejected.into()))
    }
}

impl<F: Future> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").finish_non_exhaustive()
    }
}
