//! The circuit breaker's state machine.

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
