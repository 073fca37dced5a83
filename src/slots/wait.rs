use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Permit;
use super::place::Place;
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::Reason;

pin_project! {
    /// A place in the line, for so long and never past the deadline. Dropped, it leaves the line.
    #[derive(Debug)]
    pub(crate) struct Wait {
        // Asked first: a slot that is there in time is never refused.
        place: Place,
        end: Reason,
        #[pin]
        timer: Sleep,
    }
}

impl Wait {
    pub(crate) fn new(place: Place, longest: Duration) -> Self {
        let own = clock::after(clock::now(), longest);
        let (at, end) = match Deadline::current() {
            Some(deadline) if deadline.instant() < own => {
                (deadline.instant(), Reason::DeadlineExceeded)
            }
            _ => (own, Reason::WaitedTooLong { after: longest }),
        };
        Self {
            place,
            end,
            timer: clock::until(at),
        }
    }
}

impl Future for Wait {
    type Output = Result<Permit, Reason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(turn) = this.place.poll(cx) {
            return Poll::Ready(turn);
        }
        // A deadline can be in force around this future and not have been around the call.
        let at = this.timer.deadline().into_std();
        if let Some(nearer) = Deadline::current().filter(|it| it.instant() < at) {
            this.timer.as_mut().reset(nearer.instant().into());
            *this.end = Reason::DeadlineExceeded;
        }
        ready!(this.timer.poll(cx));
        Poll::Ready(Err(*this.end))
    }
}
