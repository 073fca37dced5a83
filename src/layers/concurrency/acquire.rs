use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::{ConcurrencyLimit, Permit};
use crate::error::Rejected;
use crate::slots::Wait;

pin_project! {
    /// The wait for a [`Permit`]. Dropped, it leaves the queue.
    #[derive(Debug)]
    pub(super) struct Acquire {
        #[pin]
        pub(super) wait: Option<Wait>,
        pub(super) limit: ConcurrencyLimit,
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let wait = this.wait.as_mut().as_pin_mut();
        let result = ready!(wait.expect("polled after completion").poll(cx));
        // The place is left before anybody is told.
        this.wait.set(None);
        Poll::Ready(match result {
            Ok(slot) => Ok(Permit::new(slot, this.limit.clone())),
            Err(reason) => Err(this.limit.refused(reason)),
        })
    }
}
