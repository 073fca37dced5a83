use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::{ConcurrencyLimit, Permit};
use crate::error::Rejected;
use crate::slots::Wait;

pin_project! {
    /// The wait for a [`Permit`]. Dropped, it leaves the queue.
    #[project = AcquireProj]
    #[derive(Debug)]
    pub(super) enum Acquire {
        Waiting {
            #[pin]
            wait: Wait,
            limit: ConcurrencyLimit,
        },
        Granted { permit: Option<Permit> },
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejected>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, limit) = match self.as_mut().project() {
            AcquireProj::Waiting { wait, limit } => (ready!(wait.poll(cx)), limit.clone()),
            AcquireProj::Granted { permit } => {
                return Poll::Ready(Ok(permit.take().expect("polled after completion")));
            }
        };
        // The place is left before anybody is told.
        self.set(Self::Granted { permit: None });
        Poll::Ready(match result {
            Ok(slot) => Ok(Permit::new(slot, limit)),
            Err(reason) => Err(limit.refused(reason)),
        })
    }
}
