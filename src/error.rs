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

mod layer;
mod reason;
mod rejected;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;

pub use layer::{ErrorFuture, ErrorLayer, ErrorService};
pub use reason::Reason;
pub use rejected::Rejected;
#[cfg(feature = "hyper")]
pub(crate) use rejected::find;
pub(crate) use rejected::rounded;

/// Any error, as tower's own middleware uses it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

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
