use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::unconstrained;

use super::bound::Bound;
use super::who::Who;
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::Rejected;

pin_project! {
    /// The future of a [`Timeout`].
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        pub(super) state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    pub(super) enum State<F> {
        // The inner future is polled first: an answer that is there in time is never thrown away.
        Running {
            #[pin]
            inner: F,
            bound: Bound,
            // Registered only once the inner future is pending.
            #[pin]
            timer: Option<Sleep>,
            who: Who,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl<F, Res, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: From<Rejected>,
{
    type Output = Result<Res, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (inner, bound, mut timer, who) = match state.as_mut().project() {
            StateProj::Running {
                inner,
                bound,
                timer,
                who,
            } => (inner, bound, timer, who),
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                return Poll::Ready(Err(rejected.into()));
            }
        };
        // A deadline can be in force around this future and not have been around the call.
        if let Some(nearer) = Deadline::current().filter(|it| it.instant() < bound.at) {
            bound.at = nearer.instant();
            bound.limit = None;
            timer.set(None);
        }
        {
            let _entered = Deadline::at(bound.at).enter();
            match inner.poll(cx) {
                // What ends with an error once the time is over ended for that: a layer inside met the same deadline.
                Poll::Ready(Err(_)) if bound.at <= clock::now() => {
                    let rejected = who.refuses(bound.reason());
                    state.set(State::Refused { rejected: None });
                    return Poll::Ready(Err(rejected.into()));
                }
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => {}
            }
        }
        if timer.is_none() {
            timer.set(Some(clock::until(bound.at)));
        }
        if let Some(timer) = timer.as_pin_mut() {
            // Outside of tokio's budget for a task: an inner future that uses it up each time must end as well.
            ready!(pin!(unconstrained(timer)).poll(cx));
        }
        let rejected = who.refuses(bound.reason());
        // Drops the inner future now, not when the caller drops this one.
        state.set(State::Refused { rejected: None });
        Poll::Ready(Err(rejected.into()))
    }
}
