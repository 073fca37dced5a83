//! The one error story: a layer that refuses says so with [`Rejected`].
//!
//! A layer asks of its service's error only `From<Rejected>`. [`BoxError`] has that already; a typed stack gets it
//! from an [`ErrorLayer`] at its bottom, which turns every `E` into [`Error<E>`]. Errors never nest by layer, and
//! [`Rejected::find`] finds the refusal through any chain of sources. The guide has a stack over [your own error
//! type](crate::docs::order#your-own-error-type).
//!
//! ```
//! use buttress::{BoxError, Rejected};
//! use buttress::error::Reason;
//!
//! let error: BoxError = Rejected::new("circuit breaker", Reason::Open).named("orders").into();
//! let rejected = Rejected::find(&*error).expect("a refusal");
//! assert_eq!(rejected.reason(), Reason::Open);
//! assert_eq!(error.to_string(), "circuit breaker `orders` is open");
//! ```

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// Any error, as tower's own middleware uses it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

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
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(rejected) = error.downcast_ref() {
                return Some(rejected);
            }
            // An `io::Error` gives the source of what it holds, and not that itself.
            let held = error.downcast_ref().and_then(io::Error::get_ref);
            next = held.map(|held| held as _).or_else(|| error.source());
        }
        None
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
        match self.reason {
            Reason::TimedOut { after } => write!(f, " gave up after {:?}", rounded(after)),
            Reason::DeadlineExceeded => f.write_str(": the deadline has passed"),
            Reason::Full { limit } => write!(f, " is full: its limit is {limit} outstanding"),
            Reason::QueueFull { limit } => write!(f, " is full: its limit is {limit} waiting"),
            Reason::WaitedTooLong { after } => {
                write!(f, " is full: gave up waiting after {:?}", rounded(after))
            }
            Reason::RateLimited => f.write_str(" is reached"),
            Reason::CostAboveBurst { cost, burst } => {
                write!(
                    f,
                    " gives {burst} permits at most, and the call takes {cost}"
                )
            }
            Reason::StoreUnavailable => f.write_str(" cannot be known: its store does not answer"),
            Reason::Throttled => f.write_str(" held the call back: the peer accepts too few"),
            Reason::Open => f.write_str(" is open"),
            Reason::HalfOpen => f.write_str(" is half-open and its probes are under way"),
            Reason::ForcedOpen => f.write_str(" was forced open"),
            Reason::Panicked => f.write_str(": the shared call panicked"),
            Reason::NotInAnswer => f.write_str(": the answer lacks this element"),
            Reason::Unresolved => f.write_str(": no instance is known"),
            Reason::NoInstance => f.write_str(": none of the instances may be called"),
            Reason::NoService => f.write_str(" cannot be the name of a service; `pass_through` lets it out as it is"),
            Reason::BadAddress => f.write_str(": the instance's address cannot be called"),
            Reason::TlsNotSetUp => f.write_str(
                " must be called over TLS (its URL or its instance says so), and the client has no `tls` setting",
            ),
        }?;
        match self.retry_after {
            Some(wait) => write!(f, "; retry after {:?}", rounded(wait)),
            None => Ok(()),
        }
    }
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

impl StdError for Rejected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error type in which a refusal can be recognised, so that a layer can tell it from a failure of the peer.
///
/// A type of your own that is `From<Rejected>` says here where it keeps it.
#[diagnostic::on_unimplemented(
    message = "a refusal cannot be told from other errors in `{Self}`",
    note = "implement `buttress::error::AsRejected` for it, use `BoxError`, put an `ErrorLayer` below, or pass a classifier"
)]
pub trait AsRejected {
    /// The refusal, if this error is one or was caused by one.
    fn as_rejected(&self) -> Option<&Rejected>;
}

impl AsRejected for Rejected {
    fn as_rejected(&self) -> Option<&Rejected> {
        Some(self)
    }
}

impl AsRejected for BoxError {
    fn as_rejected(&self) -> Option<&Rejected> {
        Rejected::find(&**self)
    }
}

impl AsRejected for Infallible {
    fn as_rejected(&self) -> Option<&Rejected> {
        match *self {}
    }
}

impl<E> AsRejected for Error<E> {
    fn as_rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            Self::Inner(_) => None,
        }
    }
}

/// The error of a typed stack: a refusal, or the service's own error.
#[derive(Clone, Debug)]
pub enum Error<E> {
    /// A layer refused.
    Rejected(Rejected),
    /// The service failed.
    Inner(E),
}

impl<E> Error<E> {
    /// The service's own error, if it is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(_) => None,
        }
    }
}

impl<E> From<Rejected> for Error<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

// The source is what is wrapped and not its source: the text repeats in a full chain, but a walk finds the own type.
impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            Self::Inner(error) => Some(error),
        }
    }
}

/// Turns the errors `E` of a service into [`Error<E>`], so that layers above can refuse. Belongs at the bottom.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorLayer;

impl<S> Layer<S> for ErrorLayer {
    type Service = ErrorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorService { inner }
    }
}

/// The service of an [`ErrorLayer`].
#[derive(Clone, Debug)]
pub struct ErrorService<S> {
    inner: S,
}

impl<S, Req> Service<Req> for ErrorService<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ErrorFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ErrorFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of an [`ErrorService`].
    #[derive(Debug)]
    pub struct ErrorFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, Res, E> Future for ErrorFuture<F>
where
    F: Future<Output = Result<Res, E>>,
{
    type Output = Result<Res, Error<E>>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(Error::Inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
