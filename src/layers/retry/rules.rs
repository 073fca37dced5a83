use std::time::Duration;

use crate::classify::{Classify, ErrorsFail, Outcome};
use crate::error::{AsRejected, Rejected};

/// Which calls are tried again, and with what request.
///
/// A closure of request and result that returns a `bool`, an [`Outcome`] or a [`Decision`] will do where requests
/// are `Clone` and errors [`AsRejected`]:
///
/// ```
/// use buttress::BoxError;
/// use buttress::layers::retry::RetryLayer;
///
/// let layer = RetryLayer::new(3)
///     .rules(|_: &String, result: Result<&u16, &BoxError>| matches!(result, Ok(502..=504)));
/// ```
pub trait Rules<Req, Res, E> {
    /// A copy of `request` to send as attempt number `attempt` (1 is the first), while `request` is kept for those
    /// that may follow.
    ///
    /// `None` if it cannot be copied or must not be sent twice: `request` itself is sent then, as the last attempt.
    /// Where no further attempt is allowed, no copy is asked for.
    fn replay(&self, request: &Req, attempt: u32) -> Option<Req>;

    /// Writes into `request`, which is sent next, that it is attempt number `attempt`, 1 for the first: into a header, or
    /// an extension for the layers inside. Of what is tried again it is the copy that is written to, or the request
    /// itself in the last attempt. The default writes nothing.
    fn mark(&self, request: &mut Req, attempt: u32) {
        let _ = (request, attempt);
    }

    /// Writes into `response`, which goes to the caller unless another attempt follows, that the call took `attempts`
    /// attempts, where they are more than one. The default writes nothing.
    fn mark_response(&self, response: &mut Res, attempts: u32) {
        let _ = (response, attempts);
    }

    /// What to do after an attempt to send `request` ended with `result`. It is not asked about a refusal, nor after
    /// the last attempt.
    fn decide(&self, request: &Req, result: Result<&Res, &E>) -> Decision;

    /// Whether `result`, which the last of several attempts ended with, is one for which there would be another: then the
    /// call counts as given up. It is asked only where somebody listens, and without the request, which went with that
    /// attempt. The default says so of every error.
    fn is_failure(&self, result: Result<&Res, &E>) -> bool {
        result.is_err()
    }

    /// Whether `error` means that a layer inside refused the attempt, so that the peer never saw it.
    ///
    /// A refusal is not tried again. That of a later attempt is dropped: what the peer said before is the answer. The
    /// default knows none.
    fn is_refusal(&self, error: &E) -> bool {
        let _ = error;
        false
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The result goes to the caller.
    Done,
    /// The call is tried again, if attempts, budget and deadline allow.
    Retry {
        /// How long the peer asked to be left alone: `Retry-After`, `grpc-retry-pushback-ms`.
        after: Option<Duration>,
    },
    /// The call is tried again after exactly so long, whatever the backoff is, if attempts, budget and deadline allow:
    /// for rules that know what kind of failure takes how long to pass. [`RetryLayer::give_up_after`] cuts it.
    ///
    /// [`RetryLayer::give_up_after`]: super::RetryLayer::give_up_after
    RetryIn(Duration),
}

/// `true` tries again.
impl From<bool> for Decision {
    fn from(again: bool) -> Self {
        match again {
            true => Self::Retry { after: None },
            false => Self::Done,
        }
    }
}

/// A failure is tried again, and an overload after the time it names.
impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Ignored => Self::Done,
            Outcome::Failure => Self::Retry { after: None },
            Outcome::Overload(after) => Self::Retry { after },
        }
    }
}

/// The default: errors are tried again, save refusals by a layer inside.
///
/// A full bulkhead or an open circuit breaker refuses in order to keep calls away, so its refusal goes to the caller
/// and costs the budget nothing. A timeout is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryErrors;

impl<Req: Clone, Res, E: AsRejected> Rules<Req, Res, E> for RetryErrors {
    fn replay(&self, request: &Req, _: u32) -> Option<Req> {
        Some(request.clone())
    }

    fn decide(&self, _: &Req, result: Result<&Res, &E>) -> Decision {
        ErrorsFail.classify(result).into()
    }

    fn is_refusal(&self, error: &E) -> bool {
        is_refusal(error)
    }
}

impl<F, D, Req, Res, E> Rules<Req, Res, E> for F
where
    F: Fn(&Req, Result<&Res, &E>) -> D,
    D: Into<Decision>,
    Req: Clone,
    E: AsRejected,
{
    fn replay(&self, request: &Req, _: u32) -> Option<Req> {
        Some(request.clone())
    }

    fn decide(&self, request: &Req, result: Result<&Res, &E>) -> Decision {
        self(request, result).into()
    }

    fn is_refusal(&self, error: &E) -> bool {
        is_refusal(error)
    }
}

fn is_refusal(error: &impl AsRejected) -> bool {
    error.as_rejected().is_some_and(Rejected::never_sent)
}
