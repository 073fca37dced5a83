//! How long a request may still take, and how that travels.
//!
//! A [`Deadline`] is entered for as long as a future is polled; whatever runs inside sees it with
//! [`Deadline::current`]. A layer that waits (timeout, bulkhead, retry) never waits past it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::Deadline;
//!
//! let deadline = Deadline::within(Duration::from_millis(250));
//! let seen = deadline.scope(async { Deadline::current() }).await;
//! assert_eq!(seen, Some(deadline));
//! assert_eq!(Deadline::current(), None);
//! # }
//! ```

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tower::Service;

use crate::clock::{self, Sleep};

thread_local! {
    static CURRENT: Cell<Option<Deadline>> = const { Cell::new(None) };
}

/// The moment after which nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline at `at`.
    #[inline]
    pub fn at(at: Instant) -> Self {
        Self(at)
    }

    /// The deadline `limit` from now.
    pub fn within(limit: Duration) -> Self {
        Self(clock::after(clock::now(), limit))
    }

    /// The deadline of the request that is being polled, if it has one.
    #[inline]
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// The moment it passes.
    #[inline]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// How long there is left at `now`; zero once it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`.
    pub fn has_passed(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// Runs `future` under this deadline, or under the one around it if that is earlier.
    pub fn scope<F: Future>(self, future: F) -> Scoped<F> {
        Scoped {
            deadline: Some(self),
            future,
        }
    }

    /// The earlier of the deadline in force and `own`.
    pub(crate) fn earliest(own: Option<Instant>) -> Option<Self> {
        CURRENT.get().into_iter().chain(own.map(Self)).min()
    }

    /// Puts this deadline, or the one around it if that is earlier, in force until the guard is dropped.
    #[inline]
    pub(crate) fn enter(self) -> Entered {
        let outer = CURRENT.get();
        CURRENT.set(Some(outer.map_or(self, |outer| outer.min(self))));
        Entered { outer }
    }

    /// Puts this deadline in force, which is no later than the one around it, until the guard is dropped.
    #[inline]
    pub(crate) fn enter_within(self, outer: Option<Self>) -> Entered {
        CURRENT.set(Some(self));
        Entered { outer }
    }

    /// Puts no deadline in force until the guard is dropped: for what runs on behalf of more callers than this one.
    pub(crate) fn lift() -> Entered {
        Entered {
            outer: CURRENT.replace(None),
        }
    }
}

/// Whether `inner` is ready; false if it failed, or if `deadline` passes first. `timer` is the deadline's, and made only
/// once `inner` is pending.
pub(crate) fn poll_ready_in_time<S: Service<Req>, Req>(
    inner: &mut S,
    deadline: Option<Deadline>,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    if deadline.is_some_and(|deadline| deadline.has_passed(clock::now())) {
        return Poll::Ready(false);
    }
    if let Poll::Ready(result) = inner.poll_ready(cx) {
        return Poll::Ready(result.is_ok());
    }
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(clock::until(deadline.instant())));
    timer.as_mut().poll(cx).map(|()| false)
}

/// A deadline in force on this thread; the one around it comes back on drop.
pub(crate) struct Entered {
    outer: Option<Deadline>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

pin_project! {
    /// A future under a [`Deadline`]; see [`Deadline::scope`].
    #[derive(Debug)]
    pub struct Scoped<F> {
        deadline: Option<Deadline>,
        #[pin]
        future: F,
    }
}

impl<F> Scoped<F> {
    /// What `call` makes, itself made under `deadline` if there is one.
    #[cfg(feature = "http")]
    pub(crate) fn call(deadline: Option<Deadline>, call: impl FnOnce() -> F) -> Self {
        let _entered = deadline.map(Deadline::enter);
        Self {
            deadline,
            future: call(),
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.deadline.map(Deadline::enter);
        this.future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_nested_deadlines_rules() {
        let near = Deadline::within(Duration::from_secs(1));
        let far = Deadline::within(Duration::from_secs(9));
        let seen = near.scope(far.scope(async { Deadline::current() })).await;
        assert_eq!(seen, Some(near));
        let seen = far.scope(near.scope(async { Deadline::current() })).await;
        assert_eq!(seen, Some(near));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_leaves_no_deadline_behind() {
        let scoped = Deadline::within(Duration::from_secs(1)).scope(async { panic!("inner") });
        let mut scoped = std::pin::pin!(scoped);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = scoped
                .as_mut()
                .poll(&mut Context::from_waker(std::task::Waker::noop()));
        }));
        assert!(panicked.is_err());
        assert_eq!(Deadline::current(), None);
    }
}
