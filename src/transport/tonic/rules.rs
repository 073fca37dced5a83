use ::http::HeaderName;
use ::tonic::{Code, Status};

use super::{Failure, GrpcRequest, GrpcResponse, Pushback};
use crate::classify::{Classify, Outcome};
use crate::error::{AsRejected, Rejected};
use crate::layers::hedge::CopyRequest;
use crate::layers::retry::{Decision, Rules};
use crate::transport::http::{Attempt, Attempts, PREVIOUS_ATTEMPTS};

/// Which gRPC calls are failures, and which of them are worth another attempt.
///
/// `UNAVAILABLE` is tried again, and no other code unless it is [said](Self::retry_code): what else is safe to repeat,
/// and whether, only the service knows. `grpc-retry-pushback-ms` is respected as [gRFC A6] has it: the next attempt waits
/// at least so long, and there is none if the value is negative or cannot be read.
///
/// Each request gets an [`Attempt`] as an extension, and from the second on `grpc-previous-rpc-attempts` tells the server.
///
/// `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNKNOWN` and `DATA_LOSS` are failures of the peer.
/// `RESOURCE_EXHAUSTED`, and `UNAVAILABLE` with pushback, say that it has too much to do. `CANCELLED` says nothing of it,
/// and the other codes say that it works.
///
/// They are [rules](Rules) for a retry, a [`Classify`] for whatever counts, and say to a hedge how to [copy](CopyRequest)
/// the requests that it is put around:
///
/// ```
/// use std::time::Duration;
///
/// use buttress::layers::hedge::HedgeLayer;
/// use buttress::layers::retry::RetryLayer;
/// use buttress::transport::tonic::GrpcRules;
/// use tonic::Code;
///
/// let retry = RetryLayer::new(3).rules(GrpcRules::new().retry_code(Code::Aborted));
/// let hedge = HedgeLayer::new(Duration::from_millis(50)).copy(GrpcRules::new()).classify(GrpcRules::new());
/// ```
///
/// Around the calls of a generated client they see every status. Around a channel they see the one that stands in the
/// head of a response, as it does where a server has nothing else to send; one that follows a body comes after every
/// layer is done.
///
/// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
#[derive(Clone, Debug)]
pub struct GrpcRules {
    retried: Vec<Code>,
}

impl GrpcRules {
    /// The rules described above.
    pub fn new() -> Self {
        Self {
            retried: vec![Code::Unavailable],
        }
    }

    /// Tries again on `code` as well: `ABORTED` where the whole call can be repeated, `RESOURCE_EXHAUSTED` where other
    /// instances have room, `DEADLINE_EXCEEDED` where the timeout of an attempt stands inside and the method is
    /// idempotent.
    #[must_use]
    pub fn retry_code(mut self, code: Code) -> Self {
        self.retried.push(code);
        self
    }

    /// Whether a failure is worth another attempt, and when.
    pub fn decide(&self, failure: Failure) -> Decision {
        if !self.retried.contains(&failure.code) {
            return Decision::Done;
        }
        match failure.pushback {
            Some(Pushback::Never) => Decision::Done,
            Some(Pushback::After(wait)) => Decision::Retry { after: Some(wait) },
            None => Decision::Retry { after: None },
        }
    }

    /// What a failure says about the peer.
    pub fn classify(&self, failure: Failure) -> Outcome {
        let wait = match failure.pushback {
            Some(Pushback::After(wait)) => Some(wait),
            Some(Pushback::Never) | None => None,
        };
        match failure.code {
            Code::ResourceExhausted => Outcome::Overload(wait),
            Code::Unavailable if failure.pushback.is_some() => Outcome::Overload(wait),
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss => Outcome::Failure,
            Code::Cancelled => Outcome::Ignored,
            _ => Outcome::Success,
        }
    }
}

impl Default for GrpcRules {
    fn default() -> Self {
        Self::new()
    }
}

impl<Req: GrpcRequest, Res: GrpcResponse> Rules<Req, Res, Status> for GrpcRules {
    fn replay(&self, request: &Req, _: u32) -> Option<Req> {
        request.copy()
    }

    fn mark(&self, request: &mut Req, number: u32) {
        let hedge = false;
        mark(request, Attempt { number, hedge });
    }

    fn mark_response(&self, response: &mut Res, attempts: u32) {
        mark_response(response, attempts);
    }

    fn decide(&self, request: &Req, result: Result<&Res, &Status>) -> Decision {
        match failure(result) {
            Some(failure) if request.can_copy() => self.decide(failure),
            _ => Decision::Done,
        }
    }

    fn is_failure(&self, result: Result<&Res, &Status>) -> bool {
        failure(result).is_some_and(|failure| self.decide(failure) != Decision::Done)
    }

    fn is_refusal(&self, error: &Status) -> bool {
        is_refusal(error)
    }
}

/// Inside of a retry, its hedges count on from its attempt.
impl<Req: GrpcRequest> CopyRequest<Req> for GrpcRules {
    fn copy(&self, request: &Req, _: u32) -> Option<Req> {
        let mut hedge = request.copy()?;
        let before = hedge.extensions_mut().get::<Attempt>().copied();
        mark(&mut hedge, Attempt::hedge_after(before));
        Some(hedge)
    }
}

/// A refusal by a layer inside says nothing about the peer.
impl<Res: GrpcResponse> Classify<Res, Status> for GrpcRules {
    fn classify(&self, result: Result<&Res, &Status>) -> Outcome {
        match result {
            Err(status) if is_refusal(status) => Outcome::Ignored,
            _ => failure(result).map_or(Outcome::Success, |failure| self.classify(failure)),
        }
    }

    fn mark_response(&self, response: &mut Res, attempts: u32) {
        mark_response(response, attempts);
    }
}

fn mark(request: &mut impl GrpcRequest, attempt: Attempt) {
    request.extensions_mut().insert(attempt);
    let name = HeaderName::from_static(PREVIOUS_ATTEMPTS);
    attempt.announce(&name, request.headers_mut());
}

fn mark_response(response: &mut impl GrpcResponse, attempts: u32) {
    if let Some(extensions) = response.extensions_mut() {
        Attempts::write(attempts, extensions);
    }
}

fn failure<Res: GrpcResponse>(result: Result<&Res, &Status>) -> Option<Failure> {
    match result {
        Ok(response) => response.failure(),
        Err(status) => Some(status.into()),
    }
}

fn is_refusal(status: &Status) -> bool {
    status.as_rejected().is_some_and(Rejected::never_sent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Reason;

    const WAIT: Duration = Duration::from_millis(20);

    fn failure(code: Code, pushback: Option<Pushback>) -> Failure {
        Failure { code, pushback }
    }

    #[test]
    fn only_what_is_unavailable_or_said_is_tried_again_and_not_against_the_server() {
        let aborted = GrpcRules::new().retry_code(Code::Aborted);
        let retry = |after| Decision::Retry { after };
        for (code, pushback, expected) in [
            (Code::Unavailable, None, retry(None)),
            (
                Code::Unavailable,
                Some(Pushback::After(WAIT)),
                retry(Some(WAIT)),
            ),
            (Code::Unavailable, Some(Pushback::Never), Decision::Done),
            (Code::Aborted, None, retry(None)),
            (Code::Internal, None, Decision::Done),
            (Code::DeadlineExceeded, None, Decision::Done),
            (
                Code::ResourceExhausted,
                Some(Pushback::After(WAIT)),
                Decision::Done,
            ),
        ] {
            let decision = aborted.decide(failure(code, pushback));
            assert_eq!(decision, expected, "{code:?} {pushback:?}");
        }
        let decision = GrpcRules::new().decide(failure(Code::Aborted, None));
        assert_eq!(decision, Decision::Done);
    }

    #[test]
    fn a_code_says_whether_the_peer_works() {
        let never = Some(Pushback::Never);
        let after = Some(Pushback::After(WAIT));
        for (code, pushback, expected) in [
            (Code::Unavailable, None, Outcome::Failure),
            (Code::Unavailable, after, Outcome::Overload(Some(WAIT))),
            (Code::Unavailable, never, Outcome::Overload(None)),
            (Code::ResourceExhausted, None, Outcome::Overload(None)),
            (
                Code::ResourceExhausted,
                after,
                Outcome::Overload(Some(WAIT)),
            ),
            (Code::DeadlineExceeded, None, Outcome::Failure),
            (Code::Internal, None, Outcome::Failure),
            (Code::Unknown, None, Outcome::Failure),
            (Code::DataLoss, None, Outcome::Failure),
            (Code::Cancelled, None, Outcome::Ignored),
            (Code::NotFound, None, Outcome::Success),
            (Code::Unimplemented, None, Outcome::Success),
        ] {
            let outcome = GrpcRules::new().classify(failure(code, pushback));
            assert_eq!(outcome, expected, "{code:?} {pushback:?}");
        }
    }

    #[test]
    fn a_refusal_by_a_layer_inside_is_neither_counted_nor_tried_again() {
        let rules = GrpcRules::new();
        let open = Status::from(Rejected::new("circuit breaker", Reason::Open));
        let result: Result<&::tonic::Response<()>, _> = Err(&open);
        assert_eq!(Classify::classify(&rules, result), Outcome::Ignored);
        assert!(is_refusal(&open));

        let timed_out = Status::from(Rejected::new("timeout", Reason::DeadlineExceeded));
        let result: Result<&::tonic::Response<()>, _> = Err(&timed_out);
        assert_eq!(Classify::classify(&rules, result), Outcome::Failure);
    }
}
