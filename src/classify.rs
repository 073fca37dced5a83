//! What a result means: [`Classify`] turns it into an [`Outcome`] that breakers, balancers and limits count.
//!
//! Every layer that counts takes a classifier; a closure will do:
//!
//! ```
//! use buttress::{Classify, Outcome};
//!
//! let classify = |result: Result<&u16, &std::io::Error>| match result {
//!     Ok(500..) | Err(_) => Outcome::Failure,
//!     Ok(_) => Outcome::Success,
//! };
//! assert_eq!(classify.classify(Ok(&503)), Outcome::Failure);
//! ```

use std::time::Duration;

use crate::error::AsRejected;

/// What a finished call says about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer works.
    Success,
    /// The peer failed.
    Failure,
    /// The peer says that it has too much to do, and perhaps for how long. Counts as a failure.
    Overload(Option<Duration>),
    /// Says nothing about the peer and is not counted: a refusal of our own, a caller's mistake.
    Ignored,
}

impl Outcome {
    /// Whether it counts against the peer.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Overload(_))
    }
}

/// Turns the result of a call into an [`Outcome`].
pub trait Classify<Res, E> {
    /// The outcome that `result` stands for.
    fn classify(&self, result: Result<&Res, &E>) -> Outcome;

    /// Writes into `response`, which goes to the caller, that the call took `attempts` attempts, where they are more than
    /// one. A hedge asks for it; the default writes nothing.
    fn mark_response(&self, response: &mut Res, attempts: u32) {
        let _ = (response, attempts);
    }
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> Outcome,
{
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        self(result)
    }
}

/// The default: every error is a failure, save that a refusal by a layer inside says nothing about the peer.
///
/// A timeout is a failure: the peer was asked and did not answer in time. So is an exceeded deadline, unless the call
/// was [never sent](crate::Rejected::never_sent).
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorsFail;

impl<Res, E: AsRejected> Classify<Res, E> for ErrorsFail {
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        match result.map_err(AsRejected::as_rejected) {
            Ok(_) => Outcome::Success,
            Err(Some(rejected)) if rejected.never_sent() => Outcome::Ignored,
            Err(_) => Outcome::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Reason, Rejected};

    #[test]
    fn refusals_of_inner_layers_are_ignored_and_timeouts_are_failures() {
        let classify = |error: Error<&str>| ErrorsFail.classify(Err::<&(), _>(&error));
        let rejected = |reason| Error::from(Rejected::new("inner", reason));
        let after = Duration::from_secs(1);

        assert_eq!(classify(Error::Inner("reset")), Outcome::Failure);
        assert_eq!(classify(rejected(Reason::Open)), Outcome::Ignored);
        assert_eq!(
            classify(rejected(Reason::Full { limit: 1 })),
            Outcome::Ignored
        );
        assert_eq!(
            classify(rejected(Reason::TimedOut { after })),
            Outcome::Failure
        );
        assert_eq!(
            classify(rejected(Reason::DeadlineExceeded)),
            Outcome::Failure
        );
        let unsent = Rejected::new("inner", Reason::DeadlineExceeded).unsent();
        assert_eq!(classify(unsent.into()), Outcome::Ignored);
    }
}
