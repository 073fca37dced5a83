use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::algo::function::Function;
use crate::algo::window::{CountWindow, Tally, TimeWindow, Window};

/// When a circuit breaker opens, for how long, and what closes it again.
///
/// It opens as soon as one of its conditions holds: the failure rate, the slow-call rate, failures in a row, failures
/// in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(super) failure_rate: f64,
    pub(super) slow_call: Duration,
    pub(super) slow_rate: f64,
    pub(super) minimum_calls: u32,
    pub(super) window: Span,
    pub(super) consecutive_failures: u32,
    pub(super) failure_count: u32,
    pub(super) failure_count_calls: u32,
    pub(super) open_when_asked: bool,
    pub(super) open_wait: Duration,
    pub(super) open_wait_by: Option<Function<OpenWait>>,
    pub(super) open_multiplier: f64,
    pub(super) open_max: Duration,
    pub(super) open_jitter: f64,
    pub(super) half_open_calls: u32,
    pub(super) half_open_successes: Option<u32>,
    pub(super) half_open_limit: Option<Duration>,
    pub(super) await_all_probes: bool,
    pub(super) replace_probes: bool,
    pub(super) at_limit: AtLimit,
    pub(super) open_on_success: bool,
    pub(super) cancelled: Cancelled,
}

pub(super) type OpenWait = dyn Fn(Opening) -> Duration + Send + Sync;

/// A breaker that opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How often it has opened since it was closed last, with this one: 1 for the first.
    pub number: u32,
    /// The calls that it was judged by: those in the window, or the probes that came back.
    pub calls: Tally,
}

/// Which calls the rates are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Calls(u32),
    Time(Duration),
}

/// What a call counts as that was given up: its future or permit was dropped before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// A failure: a timeout further out looks just like this, and a peer that hangs must show.
    Failure,
    /// A failure if the call had lasted at least so long, else nothing.
    FailureAfter(Duration),
    /// Nothing. For callers that give up for reasons of their own and have a timeout inside the breaker.
    Ignored,
}

/// What a half-open breaker does that has not decided by its [limit](Settings::half_open_limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    /// The probes that came back decide, and one that is still out counts as failed; if none came back, it opens.
    Judge,
    /// It closes, whatever came back. For peers of which silence says nothing.
    Close,
    /// It closes if the probes that came back say so; else it begins anew with as many others, and those still out no
    /// longer count. The limit then runs from the first of them. For calls that may take longer than any limit.
    ProbeAgain,
}

impl Settings {
    /// Opens when at least this share of the calls in the window failed; above 0, at most 1. Default 0.5: below, the
    /// calls that still succeed are worth more than the relief to the peer.
    ///
    /// # Panics
    ///
    /// If `share` is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn failure_rate(mut self, share: f64) -> Self {
        assert_rate("failure_rate", share);
        self.failure_rate = share;
        self
    }

    /// A call that takes longer than `longest` is slow, and the breaker opens when at least `share` of the calls in
    /// the window were slow; above 0, at most 1. Off by default: only the caller knows what slow is.
    ///
    /// # Panics
    ///
    /// If `share` is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn slow_calls(mut self, longest: Duration, share: f64) -> Self {
        assert_rate("slow_calls", share);
        self.slow_call = longest;
        self.slow_rate = share;
        self
    }

    /// The rates count from so many calls in the window on; in a window of fewer calls, once that is full. Default
    /// 20: a peer that fails one call in ten reaches half of 20 by chance once in 140 000 windows, half of 5 once in
    /// 117.
    ///
    /// # Panics
    ///
    /// If `calls` is 0.
    #[must_use]
    #[track_caller]
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        assert!(calls > 0, "minimum_calls must be at least 1");
        self.minimum_calls = calls;
        self
    }

    /// Takes the rates over the last `calls` calls, however old, instead of over a time. Its memory, 2 bytes a call,
    /// is taken at the start.
    ///
    /// # Panics
    ///
    /// If `calls` is 0.
    #[must_use]
    #[track_caller]
    pub fn count_window(mut self, calls: u32) -> Self {
        assert!(calls > 0, "count_window must hold at least 1 call");
        self.window = Span::Calls(calls);
        self
    }

    /// Takes the rates over the calls that ended in the last `length`. It slides by a twentieth of that. Default
    /// 10 s: it forgets in silence, and holds the minimum of calls at 2 a second.
    ///
    /// # Panics
    ///
    /// If `length` is zero.
    #[must_use]
    #[track_caller]
    pub fn time_window(mut self, length: Duration) -> Self {
        assert!(!length.is_zero(), "time_window must not be zero");
        self.window = Span::Time(length);
        self
    }

    /// Opens as well after so many failures in a row, whatever the rates and however few the calls. Off by default;
    /// for traffic too thin for [`minimum_calls`](Self::minimum_calls).
    ///
    /// # Panics
    ///
    /// If `failures` is 0.
    #[must_use]
    #[track_caller]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        assert!(failures > 0, "consecutive_failures must be at least 1");
        self.consecutive_failures = failures;
        self
    }

    /// Opens as well once so many of the calls in the window failed, whatever their share and however few the calls.
    /// Off by default: more traffic makes it stricter. For traffic of a known rate.
    ///
    /// # Panics
    ///
    /// If `failures` is 0.
    #[must_use]
    #[track_caller]
    pub fn failure_count(mut self, failures: u32) -> Self {
        assert!(failures > 0, "failure_count must be at least 1");
        self.failure_count = failures;
        self
    }

    /// Lets [`failure_count`](Self::failure_count) open it only from so many calls in the window on; in a window of
    /// fewer calls, once that is full. Default 1: a count needs no other calls to compare with.
    #[must_use]
    pub fn failure_count_calls(mut self, calls: u32) -> Self {
        self.failure_count_calls = calls;
        self
    }

    /// Whether one call opens it that ends with an overload whose `Retry-After` is not zero, for as long as that asks
    /// or as the settings have it, whichever is longer. Off by default: where many instances answer, one of them must
    /// not stop the calls of all.
    #[must_use]
    pub fn open_when_asked(mut self, yes: bool) -> Self {
        self.open_when_asked = yes;
        self
    }

    /// How long it stays open the first time. Default 5 s: a restart takes about that.
    ///
    /// # Panics
    ///
    /// If `wait` is zero.
    #[must_use]
    #[track_caller]
    pub fn open_wait(mut self, wait: Duration) -> Self {
        assert!(!wait.is_zero(), "open_wait must not be zero");
        self.open_wait = wait;
        self
    }

    /// Asks `wait` each time it opens, in place of [`open_wait`](Self::open_wait) and
    /// [`open_multiplier`](Self::open_multiplier); [`open_max`](Self::open_max) and [`open_jitter`](Self::open_jitter) hold
    /// for what it says. `wait` runs under the breaker's lock, so it must not use
    /// the breaker.
    ///
    /// ```
    /// use std::time::Duration;
    /// use buttress::algo::breaker::Settings;
    ///
    /// // Longer where all calls failed than where half of them did.
    /// let settings = Settings::default().open_wait_by(|opening| {
    ///     Duration::from_secs(10).mul_f64(opening.calls.failure_rate()) * opening.number
    /// });
    /// ```
    #[must_use]
    pub fn open_wait_by(
        mut self,
        wait: impl Fn(Opening) -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.open_wait_by = Some(Function(Arc::new(wait)));
        self
    }

    /// By how much the wait grows each time it opens again without having closed. Default 2, so that a long outage is
    /// probed ever less often; 1 keeps the wait as it is.
    ///
    /// # Panics
    ///
    /// If `factor` is below 1 or not finite.
    #[must_use]
    #[track_caller]
    pub fn open_multiplier(mut self, factor: f64) -> Self {
        assert!(
            factor.is_finite() && factor >= 1.0,
            "open_multiplier must be at least 1, not {factor}"
        );
        self.open_multiplier = factor;
        self
    }

    /// How long it stays open at most, also where the peer asks for more with an overload's `Retry-After`; an
    /// [`open_wait`](Self::open_wait) above it wins. Default 60 s: a peer that is back is found within a minute.
    #[must_use]
    pub fn open_max(mut self, wait: Duration) -> Self {
        self.open_max = wait;
        self
    }

    /// By what share a wait is shortened at most, at random, so that a fleet does not probe in step; from 0 to 1.
    /// Default 0.5: waits spread evenly between half and the whole.
    ///
    /// # Panics
    ///
    /// If `share` is not from 0 to 1.
    #[must_use]
    #[track_caller]
    pub fn open_jitter(mut self, share: f64) -> Self {
        assert!(
            (0.0..=1.0).contains(&share),
            "open_jitter must be from 0 to 1, not {share}"
        );
        self.open_jitter = share;
        self
    }

    /// How many probes a half-open breaker admits, in total. Default 5: with the default rate, three that agree
    /// decide, so that one lucky or unlucky probe does not.
    ///
    /// # Panics
    ///
    /// If `calls` is 0.
    #[must_use]
    #[track_caller]
    pub fn half_open_calls(mut self, calls: u32) -> Self {
        assert!(calls > 0, "half_open_calls must be at least 1");
        self.half_open_calls = calls;
        self
    }

    /// Closes after so many probes that succeeded and were not slow, and opens once too few are left for that; more
    /// than [`half_open_calls`](Self::half_open_calls) means all of them. Off by default: the rates decide, as they do
    /// when it is closed.
    ///
    /// # Panics
    ///
    /// If `successes` is 0.
    #[must_use]
    #[track_caller]
    pub fn half_open_successes(mut self, successes: u32) -> Self {
        assert!(successes > 0, "half_open_successes must be at least 1");
        self.half_open_successes = Some(successes);
        self
    }

    /// How long it stays half-open at most; then comes what [`at_limit`](Self::at_limit) says. So a probe that hangs
    /// blocks nothing, and thin traffic can close it. Should be longer than a call may take. Default: as
    /// [`open_wait`](Self::open_wait).
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn half_open_limit(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "half_open_limit must not be zero");
        self.half_open_limit = Some(limit);
        self
    }

    /// Whether a half-open breaker hears all its probes before it decides, or as many as
    /// [`minimum_calls`](Self::minimum_calls) where that is fewer, and opens if they are not back in time. Off by
    /// default: it decides as soon as the rest cannot change the verdict.
    #[must_use]
    pub fn await_all_probes(mut self, yes: bool) -> Self {
        self.await_all_probes = yes;
        self
    }

    /// Whether a probe that came back makes room for another, so that [`half_open_calls`](Self::half_open_calls) bounds
    /// how many are under way and not how many there are. Off by default: a peer that recovers gets no more than it
    /// must. With it on, probes that hang delay the verdict and do not prevent it.
    #[must_use]
    pub fn replace_probes(mut self, yes: bool) -> Self {
        self.replace_probes = yes;
        self
    }

    /// What a half-open breaker does that has not decided by its [limit](Self::half_open_limit). Default
    /// [`AtLimit::Judge`]: a peer that answers no probe is not well.
    #[must_use]
    pub fn at_limit(mut self, then: AtLimit) -> Self {
        self.at_limit = then;
        self
    }

    /// Whether a call that went well can open it, as it may where it completes the
    /// [minimum](Self::minimum_calls). On by default: the rates are what they are.
    #[must_use]
    pub fn open_on_success(mut self, yes: bool) -> Self {
        self.open_on_success = yes;
        self
    }

    /// What a cancelled call counts as. Default [`Cancelled::Failure`].
    #[must_use]
    pub fn cancelled(mut self, cancelled: Cancelled) -> Self {
        self.cancelled = cancelled;
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            slow_call: Duration::MAX,
            // Out of reach.
            slow_rate: f64::INFINITY,
            minimum_calls: 20,
            window: Span::Time(Duration::from_secs(10)),
            consecutive_failures: u32::MAX,
            failure_count: u32::MAX,
            failure_count_calls: 1,
            open_when_asked: false,
            open_wait: Duration::from_secs(5),
            open_wait_by: None,
            open_multiplier: 2.0,
            open_max: Duration::from_secs(60),
            open_jitter: 0.5,
            half_open_calls: 5,
            half_open_successes: None,
            half_open_limit: None,
            await_all_probes: false,
            replace_probes: false,
            at_limit: AtLimit::Judge,
            open_on_success: true,
            cancelled: Cancelled::Failure,
        }
    }
}

impl Span {
    pub(super) fn empty(self, now: Instant) -> Window {
        match self {
            Self::Calls(calls) => Window::Last(CountWindow::new(calls)),
            Self::Time(length) => Window::Within(TimeWindow::new(length, now)),
        }
    }
}

#[track_caller]
fn assert_rate(setting: &str, share: f64) {
    assert!(
        share > 0.0 && share <= 1.0,
        "the rate of {setting} must be above 0 and at most 1, not {share}"
    );
}
