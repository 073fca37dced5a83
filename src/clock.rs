//! The only reader of time. It stands on tokio's clock, so that a paused test moves everything.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;
pub use tokio::time::{Sleep, sleep, sleep_until};

use crate::algo::tick::Moment;

/// The time now, on a clock that only goes forward and that a test can pause.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Begins a call now. Until the guard is dropped, a call that is begun from within begins at the same moment, so that a
/// stack of layers reads the clock once on its way in.
#[inline]
pub(crate) fn begin() -> Begun {
    LATEST.with(|latest| {
        if latest.is_beginning.get() {
            let at = latest.at.get().unwrap_or_else(now);
            return Begun { at, within: true };
        }
        let at = now();
        latest.at.set(Some(at));
        latest.is_beginning.set(true);
        latest.is_unused.set(true);
        Begun { at, within: false }
    })
}

/// The last moment that was read for a call that begins.
struct Latest {
    at: Cell<Option<Instant>>,
    /// Whether that call is on its way in.
    is_beginning: Cell<bool>,
    /// Whether it has not served for an end yet.
    is_unused: Cell<bool>,
}

impl Latest {
    const fn none() -> Self {
        Self {
            at: Cell::new(None),
            is_beginning: Cell::new(false),
            is_unused: Cell::new(false),
        }
    }

    /// Whether it is `begun`, and may once serve for the end of that call.
    #[inline(always)]
    fn serves(&self, begun: Instant) -> bool {
        self.is_unused.replace(false) && self.at.get() == Some(begun)
    }
}

/// A call on its way in.
pub(crate) struct Begun {
    pub(crate) at: Instant,
    within: bool,
}

impl Drop for Begun {
    #[inline]
    fn drop(&mut self) {
        if !self.within {
            LATEST.with(|latest| latest.is_beginning.set(false));
        }
    }
}

/// Polls what a call waits for. If that is over, [`end`] says when.
#[inline(always)]
pub(crate) fn poll<T>(poll: impl FnOnce() -> T) -> T {
    ENDED.set(None);
    poll()
}

/// When the call that was just [polled](poll) ended, as the first to ask read it: a stack of layers ends at one moment.
#[inline]
pub(crate) fn end() -> Moment {
    match ENDED.get() {
        Some(Ended { at, is_read: true }) => at,
        _ => ended(now(), true),
    }
}

/// As [`end`], for a call that was over when it was first polled, and that is not timed: `begun`, if no other call has begun
/// on the thread since, and it has not been asked this for another. So of all whose futures are kept and polled late, one
/// may be taken to have ended early.
#[inline(always)]
pub(crate) fn end_at_once(begun: Instant) -> Moment {
    match ENDED.get() {
        Some(Ended { at, .. }) => at,
        None if LATEST.with(|latest| latest.serves(begun)) => ended(begun, false),
        None => end(),
    }
}

/// As [`end`], or as a layer inside has taken it to be [at once](end_at_once).
#[inline(always)]
pub(crate) fn end_as_known() -> Moment {
    match ENDED.get() {
        Some(Ended { at, .. }) => at,
        None => end(),
    }
}

#[inline(always)]
fn ended(at: Instant, is_read: bool) -> Moment {
    let at = Moment::of(at);
    ENDED.set(Some(Ended { at, is_read }));
    at
}

/// The end of a call.
#[derive(Clone, Copy)]
struct Ended {
    at: Moment,
    /// Or taken to be its begin.
    is_read: bool,
}

thread_local! {
    static LATEST: Latest = const { Latest::none() };
    static ENDED: Cell<Option<Ended>> = const { Cell::new(None) };
    /// Those that no timer is in.
    static BOXES: RefCell<Vec<TimerBox>> = const { RefCell::new(Vec::new()) };
}

/// So many calls of a thread may have waited at once, but seldom do: what is above is freed.
const MOST_BOXES: usize = 1024;

/// A timer for the moment `at`.
pub fn until(at: Instant) -> Sleep {
    sleep_until(at.into())
}

/// A timer that takes no room until something waits for it, and then a box that another has left: a future that may need
/// one stays small, and a call allocates only where more wait at once than ever did on its thread.
///
/// What is left goes on running, for nobody, and whoever takes it on lets it run and moves it when it ends too early:
/// calls that end in time do not take the lock of the runtime's wheel, twice each, to start and to stop a timer.
#[derive(Default)]
pub(crate) struct Timer(Option<TimerBox>);

type TimerBox = Pin<Box<Option<Running>>>;

pin_project! {
    struct Running {
        // Where it runs: one that nobody drives any more would never end.
        runtime: Id,
        // The moment that is waited for, at or after that at which it ends.
        at: Instant,
        #[pin]
        sleep: Sleep,
    }
}

impl Timer {
    /// Has a box ready for one more timer on this thread.
    pub(crate) fn prepare() {
        leave(Box::pin(None));
    }

    /// Waits until `at`, or until the moment that it was first given since it was [stopped](Self::stop).
    pub(crate) fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| take(at));
        if let Some(running) = timer.as_mut().as_pin_mut() {
            let mut running = running.project();
            ready!(poll_sleep(running.sleep.as_mut(), cx));
            if running.sleep.deadline().into_std() < *running.at {
                running.sleep.as_mut().reset((*running.at).into());
                ready!(poll_sleep(running.sleep, cx));
            }
        }
        Poll::Ready(())
    }

    /// The next wait is another.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }
}

impl Drop for Timer {
    #[inline]
    fn drop(&mut self) {
        if let Some(timer) = self.0.take() {
            leave(timer);
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.0.is_some()).finish()
    }
}

/// Outside of tokio's budget for a task, which what is bounded in time may use up each time that it is polled.
#[inline]
fn poll_sleep(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(sleep)).poll(cx)
}

/// A timer for the moment `at`, which another has left if there is one.
fn take(at: Instant) -> TimerBox {
    let left = BOXES.try_with(|boxes| boxes.borrow_mut().pop());
    let mut timer = left.ok().flatten().unwrap_or_else(|| Box::pin(None));
    let runtime = Handle::current().id();
    let at_most = tokio::time::Instant::from_std(at);
    match timer.as_mut().as_pin_mut() {
        // When a runtime ends, so do all its timers; then another may have its name.
        Some(running) if running.runtime == runtime && !running.sleep.is_elapsed() => {
            let mut running = running.project();
            *running.at = at;
            if at_most < running.sleep.deadline() {
                running.sleep.as_mut().reset(at_most);
            }
        }
        _ => {
            let sleep = sleep_until(at_most);
            timer.set(Some(Running { runtime, at, sleep }));
        }
    }
    timer
}

#[inline(never)]
fn leave(mut timer: TimerBox) {
    if let Some(running) = timer.as_mut().as_pin_mut() {
        if running.sleep.is_elapsed() {
            timer.set(None);
        } else {
            // Wakes nobody from now on.
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = poll_sleep(running.project().sleep, &mut nobody);
        }
    }
    // A thread that is about to end keeps none.
    let _ = BOXES.try_with(|boxes| {
        let mut boxes = boxes.borrow_mut();
        if boxes.len() < MOST_BOXES {
            boxes.push(timer);
        }
    });
}

/// `at + wait`. A wait of more than about 30 years counts as that, so that the clock can hold its end.
#[inline]
pub fn after(at: Instant, wait: Duration) -> Instant {
    // In seconds, for that is one comparison.
    if wait.as_secs() < FAR.as_secs() {
        if let Some(end) = at.checked_add(wait) {
            return end;
        }
    }
    far(at)
}

#[cold]
fn far(at: Instant) -> Instant {
    at.checked_add(FAR).unwrap_or(at)
}

const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The calendar, for dates that peers send and for files. It may jump.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    /// Lets a timer of the moment `at` run and leaves it.
    fn leave_one(at: Instant, cx: &mut Context<'_>) {
        assert!(Timer::default().poll_until(at, cx).is_pending());
    }

    async fn ends(at: Instant) {
        let mut timer = Timer::default();
        poll_fn(|cx| timer.poll_until(at, cx)).await;
        assert_eq!(now(), at);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_left_ends_at_the_moment_of_whoever_takes_it_on() {
        let mut nobody = Context::from_waker(Waker::noop());
        for left in [1, 2, 3] {
            leave_one(now() + left * SECOND, &mut nobody);
            ends(now() + 2 * SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_left_wakes_nobody() {
        struct Never;
        impl Wake for Never {
            fn wake(self: Arc<Self>) {
                panic!("woken");
            }
        }
        let never = Arc::new(Never);
        let waker = Waker::from(Arc::clone(&never));
        leave_one(now() + SECOND, &mut Context::from_waker(&waker));
        drop(waker);
        assert_eq!(Arc::strong_count(&never), 1);
        sleep(2 * SECOND).await;
    }

    #[test]
    fn a_timer_that_was_left_in_a_runtime_that_ended_or_stands_still_is_not_taken_on() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().unwrap()
        };
        let leave_in = |runtime: &tokio::runtime::Runtime| {
            runtime.block_on(async {
                let mut nobody = Context::from_waker(Waker::noop());
                leave_one(now() + SECOND, &mut nobody);
            });
        };
        let stands_still = runtime();
        leave_in(&stands_still);
        runtime().block_on(async { ends(now() + 2 * SECOND).await });
        let ended = runtime();
        leave_in(&ended);
        drop(ended);
        runtime().block_on(async { ends(now() + 2 * SECOND).await });
    }
}
