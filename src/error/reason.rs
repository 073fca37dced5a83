//! Why a layer refuses, and how each reason reads.

use std::fmt;
use std::time::Duration;

use super::rounded;

/// Why a call was refused or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The call took longer than the limit of a timeout layer.
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The request's [`Deadline`](crate::Deadline) passed.
    DeadlineExceeded,
    /// As many calls as the limit allows are outstanding, and nothing waits.
    Full {
        /// The limit.
        limit: usize,
    },
    /// The queue in front of a limit is full.
    QueueFull {
        /// The longest the queue may be.
        limit: usize,
    },
    /// The call waited in a queue as long as it may.
    WaitedTooLong {
        /// How long it waited.
        after: Duration,
    },
    /// The permits of a rate limit are spent.
    RateLimited,
    /// The call asks for more permits than a rate limit ever gives at once.
    CostAboveBurst {
        /// The permits it asks for.
        cost: u32,
        /// The most there are at once.
        burst: u32,
    },
    /// The store that holds a shared rate limit cannot be asked.
    StoreUnavailable,
    /// The peer refuses much of what it is sent, and this call was held back.
    Throttled,
    /// The circuit breaker is open.
    Open,
    /// The circuit breaker is half-open, and all its probes are under way.
    HalfOpen,
    /// The circuit breaker was forced open by hand.
    ForcedOpen,
    /// The call that this one shared panicked in the hands of another caller.
    Panicked,
    /// The answer to a batch has nothing for this call.
    NotInAnswer,
    /// No registry knows an instance of the service.
    Unresolved,
    /// Instances are known, but none may be called.
    NoInstance,
    /// The host in the URL cannot be a service.
    NoService,
    /// The registry names an address that cannot be called.
    BadAddress,
    /// The call needs TLS, and the client was not told how.
    TlsNotSetUp,
}

impl Reason {
    /// Writes what is said of a layer that was named before: ` is open`.
    pub(super) fn follows(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(f, " gave up after {:?}", rounded(after)),
            Self::DeadlineExceeded => f.write_str(": the deadline has passed"),
            Self::Full { limit } => write!(f, " is full: its limit is {limit} outstanding"),
            Self::QueueFull { limit } => write!(f, " is full: its limit is {limit} waiting"),
            Self::WaitedTooLong { after } => {
                write!(f, " is full: gave up waiting after {:?}", rounded(after))
            }
            Self::RateLimited => f.write_str(" is reached"),
            Self::CostAboveBurst { cost, burst } => {
                write!(
                    f,
                    " gives {burst} permits at most, and the call takes {cost}"
                )
            }
            Self::StoreUnavailable => f.write_str(" cannot be known: its store does not answer"),
            Self::Throttled => f.write_str(" held the call back: the peer accepts too few"),
            Self::Open => f.write_str(" is open"),
            Self::HalfOpen => f.write_str(" is half-open and its probes are under way"),
            Self::ForcedOpen => f.write_str(" was forced open"),
            Self::Panicked => f.write_str(": the shared call panicked"),
            Self::NotInAnswer => f.write_str(": the answer lacks this element"),
            Self::Unresolved => f.write_str(": no instance is known"),
            Self::NoInstance => f.write_str(": none of the instances may be called"),
            Self::NoService => f.write_str(" cannot be the name of a service; `pass_through` lets it out as it is"),
            Self::BadAddress => f.write_str(": the instance's address cannot be called"),
            Self::TlsNotSetUp => f.write_str(
                " must be called over TLS (its URL or its instance says so), and the client has no `tls` setting",
            ),
        }
    }
}
