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

mod machine;
mod settings;

pub use machine::{Breaker, Call, Change, Figures, Refusal, Ticket};
pub use settings::{Cancelled, Settings};

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
