//! The circuit breaker's state machine.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use buttress::algo::breaker::{Breaker, Call, Settings, State};
//! # struct Half;
//! # impl buttress::algo::Rng for Half {
//! #     fn next_u64(&mut self) -> u64 { 1 << 63 }
//! # }
//! # let mut rng = Half;
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//!
//! let mut breaker = Breaker::new(Settings::default().consecutive_failures(1), now);
//! let ticket = breaker.acquire(now, &mut rng).unwrap();
//! breaker.record(ticket, Call::failed(Duration::from_millis(3)), now, &mut rng);
//! assert_eq!(breaker.figures(now, &mut rng).state, State::Open);
//! assert!(breaker.acquire(now, &mut rng).is_err());
//! ```

use std::num::NonZeroU64;
use std::time::Duration;

use super::window::Tally;

mod calm;
mod machine;
mod phase;
mod settings;
mod steps;
mod verdict;

pub use machine::Breaker;
pub use settings::{AtLimit, Cancelled, Opening, Settings};
pub use steps::IllegalChange;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls flow and are counted.
    Closed,
    /// Calls are refused until the wait is over.
    Open,
    /// A set number of probes decides.
    HalfOpen,
    /// Opened by hand: calls are refused until somebody changes that.
    ForcedOpen,
    /// Switched off by hand: calls flow, nothing is counted.
    Disabled,
    /// Calls flow and are counted, but the breaker never opens.
    MetricsOnly,
}

/// The right to make one call, in the state in which it was given.
#[derive(Debug)]
#[must_use]
pub struct Ticket(NonZeroU64);

impl Ticket {
    /// Of the epoch of a state that lets the call through.
    #[inline]
    pub(crate) fn of(epoch: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(epoch))
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.0.get() - 1
    }
}

/// How a call went.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Whether it failed.
    pub failed: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// How long the peer asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Why a call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The state that refuses: open, half-open or forced open.
    pub state: State,
    /// How long that may last at most, where it ends by itself.
    pub retry_after: Option<Duration>,
}

/// Something to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A condition for opening holds: a closed breaker opens, one that only counts would have. Once for each condition
    /// until the state changes.
    Tripped(Condition),
    /// The state changed.
    Changed(Change),
}

/// One of the conditions for opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The failure rate.
    FailureRate,
    /// The slow-call rate.
    SlowCallRate,
    /// Failures in a row.
    ConsecutiveFailures,
    /// Failures in all.
    FailureCount,
    /// The peer asked to be left alone.
    Asked,
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state it left.
    pub from: State,
    /// The state it is in.
    pub to: State,
}

/// What a breaker knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Its state.
    pub state: State,
    /// The calls it judges by: those in the window; of an open breaker those that opened it; of a half-open one the
    /// probes that came back. Nothing in the states that do not count.
    pub calls: Tally,
    /// The share of failures in `calls`, from 0 to 1; none below the minimum of calls.
    pub failure_rate: Option<f64>,
    /// The share of slow calls in `calls`, from 0 to 1; none below the minimum of calls.
    pub slow_rate: Option<f64>,
    /// How many calls were refused since the state began.
    pub refused: u64,
    /// How long it stays open; zero once the next call may probe.
    pub retry_after: Option<Duration>,
}

impl Call {
    /// A success that took `elapsed`.
    pub fn succeeded(elapsed: Duration) -> Self {
        Self {
            failed: false,
            elapsed,
            retry_after: None,
        }
    }

    /// A failure that took `elapsed`.
    pub fn failed(elapsed: Duration) -> Self {
        Self {
            failed: true,
            ..Self::succeeded(elapsed)
        }
    }
}
