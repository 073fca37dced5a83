use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use buttress::clock;

/// The virtual clock of one vector.
pub(crate) struct Timeline {
    start: Instant,
}

impl Timeline {
    /// Its zero is now.
    pub(crate) fn start() -> Self {
        Self {
            start: clock::now(),
        }
    }

    pub(crate) fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// Lets the clock go on, and wakes on the way whoever waits for a moment before.
    pub(crate) async fn sleep_until(&self, millis: u64) {
        clock::until(self.at(millis)).await;
    }

    /// Lets the clock go on to `at`, if it is not there yet.
    pub(crate) async fn reach(&self, at: Instant) {
        let left = at.saturating_duration_since(clock::now());
        if !left.is_zero() {
            tokio::time::advance(left).await;
        }
    }
}

/// Polls once, with the waker of this task.
pub(crate) async fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
