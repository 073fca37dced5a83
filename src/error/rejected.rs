//! The refusal itself: who refused, and what is asked of it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxError, Reason};

/// A call that was refused or given up by a layer: which one, why, and when to come back.
///
/// It is `Clone`, so that one refusal can answer several waiters.
#[derive(Clone, Debug)]
pub struct Rejected {
    layer: &'static str,
    name: Option<Arc<str>>,
    instance: Option<Arc<str>>,
    reason: Reason,
    retry_after: Option<Duration>,
    unsent: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Rejected {
    /// A refusal by `layer` (its name in words, such as `"circuit breaker"`).
    pub fn new(layer: &'static str, reason: Reason) -> Self {
        Self {
            layer,
            name: None,
            instance: None,
            reason,
            retry_after: None,
            unsent: false,
            source: None,
        }
    }

    /// Says which breaker, bulkhead or service it was.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says which instance of the service the call was for, by its id.
    #[must_use]
    pub fn at(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Says when it may be worth trying again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Says that time ran out before anything was sent to the peer; see [`never_sent`](Self::never_sent).
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.unsent = true;
        self
    }

    /// Says what lies behind the refusal.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The layer that refused, in words: `"circuit breaker"`.
    pub fn layer(&self) -> &'static str {
        self.layer
    }

    /// The name of the breaker, bulkhead or service, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The id of the instance that the call was for, where one was picked.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// Why it refused.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// How long to wait before trying again, where the layer knows.
    pub fn wait_hint(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the peer never saw the call, so that nothing is known of the peer. A call whose time ran out, or that
    /// shared one which panicked, may have been seen, unless the layer says that it was [`unsent`](Self::unsent); one
    /// for which an answer has nothing was.
    pub fn never_sent(&self) -> bool {
        let was_shared = matches!(self.reason, Reason::Panicked | Reason::NotInAnswer);
        self.unsent || !(self.is_timeout() || was_shared)
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.reason,
            Reason::TimedOut { .. } | Reason::DeadlineExceeded
        )
    }

    /// Whether a circuit breaker refused.
    pub fn is_open(&self) -> bool {
        matches!(
            self.reason,
            Reason::Open | Reason::HalfOpen | Reason::ForcedOpen
        )
    }

    /// Whether a limit on what is outstanding refused.
    pub fn is_full(&self) -> bool {
        matches!(
            self.reason,
            Reason::Full { .. } | Reason::QueueFull { .. } | Reason::WaitedTooLong { .. }
        )
    }

    /// Whether a rate limit refused.
    pub fn is_rate_limited(&self) -> bool {
        matches!(
            self.reason,
            Reason::RateLimited | Reason::CostAboveBurst { .. }
        )
    }

    /// Finds the refusal in `error` or in what caused it.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        find(error)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layer)?;
        match (&self.name, &self.instance) {
            (Some(name), Some(instance)) => write!(f, " `{name} at {instance}`"),
            (Some(name), None) | (None, Some(name)) => write!(f, " `{name}`"),
            (None, None) => Ok(()),
        }?;
        self.reason.follows(f)?;
        match self.retry_after {
            Some(wait) => write!(f, "; retry after {:?}", rounded(wait)),
            None => Ok(()),
        }
    }
}

impl StdError for Rejected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The first `T` in `error` and what caused it.
pub(crate) fn find<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An `io::Error` gives the source of what it holds, and not that itself.
        let held = error.downcast_ref().and_then(io::Error::get_ref);
        next = held.map(|held| held as _).or_else(|| error.source());
    }
    None
}

/// `wait` as people read it: to a tenth of a second, or to a millisecond below one, so that the same refusal has the
/// same text.
pub(crate) fn rounded(wait: Duration) -> Duration {
    let unit = if wait.as_secs() > 0 { 100 } else { 1 };
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    match micros {
        ..1000 => wait,
        _ => Duration::from_millis(micros.div_ceil(1000 * unit) * unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AsRejected, Error};

    #[test]
    fn a_refusal_is_found_through_any_chain() {
        #[derive(Debug)]
        struct Outer(BoxError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&*self.0)
            }
        }

        let full = Rejected::new("bulkhead", Reason::Full { limit: 2 }).named("a");
        let within = io::Error::other(Error::<io::Error>::from(full));
        let error: BoxError = Box::new(Outer(Box::new(within)));
        let found = error.as_rejected().expect("found");
        assert!(found.is_full());
        assert_eq!(found.name(), Some("a"));
    }

    #[test]
    fn what_a_peer_may_have_seen_was_not_never_sent() {
        let after = Duration::from_secs(1);
        for (reason, expected) in [
            (Reason::Open, true),
            (Reason::Full { limit: 1 }, true),
            (Reason::RateLimited, true),
            (Reason::NoInstance, true),
            (Reason::TimedOut { after }, false),
            (Reason::DeadlineExceeded, false),
            (Reason::Panicked, false),
            (Reason::NotInAnswer, false),
        ] {
            let rejected = Rejected::new("test", reason);
            assert_eq!(rejected.never_sent(), expected, "{reason:?}");
            assert!(rejected.unsent().never_sent());
        }
    }

    #[test]
    fn the_source_of_a_refusal_is_kept() {
        let io = std::io::Error::other("socket closed");
        let error = Rejected::new("resolver", Reason::Unresolved).caused_by(io);
        let source = error.source().expect("a source");
        assert!(source.downcast_ref::<std::io::Error>().is_some());
    }

    #[test]
    fn a_refusal_says_who_why_and_when_to_come_back() {
        let rejected = Rejected::new("circuit breaker", Reason::Open)
            .named("orders")
            .retry_after(Duration::from_millis(1500));
        assert_eq!(
            rejected.to_string(),
            "circuit breaker `orders` is open; retry after 1.5s"
        );
    }
}
