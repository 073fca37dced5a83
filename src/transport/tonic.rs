//! Refusals as [`tonic::Status`], and what gRPC says about failures and trying again. See the
//! [guide](crate::docs::transports#tonic-a-channel-or-a-server).
//!
//! Every layer can refuse with a [`Status`], so a stack over [`status`] needs nothing else, in a client and in a server:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use buttress::algo::breaker::Settings;
//! use buttress::layers::circuit_breaker::CircuitBreaker;
//! use buttress::transport::tonic::{GrpcRules, status};
//! use tonic::transport::Endpoint;
//! use tower::ServiceBuilder;
//!
//! let breaker = CircuitBreaker::new("greeter", Settings::default());
//! let channel = ServiceBuilder::new()
//!     .layer(breaker.layer().classify(GrpcRules::new()))
//!     .map_err(status)
//!     .service(Endpoint::from_static("http://127.0.0.1:50051").connect_lazy());
//! // let mut greeter = GreeterClient::new(channel);
//! # tonic::client::Grpc::new(channel).ready().await.unwrap();
//! # }
//! ```
//!
//! | refusal | code |
//! |---|---|
//! | time ran out | `DEADLINE_EXCEEDED` |
//! | a limit: of rate, of what is outstanding | `RESOURCE_EXHAUSTED` |
//! | the code or the set-up is at fault | `INTERNAL` |
//! | any other: a breaker, no instance | `UNAVAILABLE` |
//!
//! `grpc-retry-pushback-ms` says when to come back where the refusal knows it, and [`Rejected::find`] finds the refusal
//! in the status.

use std::sync::Arc;
use std::time::Duration;

use ::tonic::metadata::MetadataMap;
use ::tonic::{Code, Status};

use super::is_our_fault;
use crate::error::{AsRejected, BoxError, Rejected};
use crate::layers::chaos::Injected;
use crate::layers::coalesce::{Share, ShareErrors};

mod message;
mod rules;

pub use message::{Failure, GrpcRequest, GrpcResponse, Pushback};
pub use rules::GrpcRules;

/// What a gRPC client or server makes of `error`, for `map_err` at the bottom of a stack: the status in it, that of the
/// refusal in it, `UNAVAILABLE` for a connection that failed, or else `UNKNOWN`. The error is its source.
pub fn status(error: impl Into<BoxError>) -> Status {
    let error = error.into();
    match Rejected::find(&*error) {
        Some(rejected) if !error.is::<Status>() => {
            let mut status = refused(rejected);
            status.set_source(Arc::from(error));
            status
        }
        _ => Status::from_error(error),
    }
}

impl From<Rejected> for Status {
    fn from(rejected: Rejected) -> Self {
        let mut status = refused(&rejected);
        status.set_source(Arc::new(rejected));
        status
    }
}

impl AsRejected for Status {
    fn as_rejected(&self) -> Option<&Rejected> {
        Rejected::find(self)
    }
}

/// A fault on purpose is taken for one of the peer.
impl From<Injected> for Status {
    fn from(injected: Injected) -> Self {
        let mut status = Self::unavailable(injected.to_string());
        status.set_source(Arc::new(injected));
        status
    }
}

impl Share<Status> for ShareErrors {
    fn share(&self, error: &mut Status) -> Status {
        error.clone()
    }
}

fn refused(rejected: &Rejected) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(wait) = rejected.wait_hint() {
        metadata.insert(PUSHBACK, millis(wait).into());
    }
    Status::with_metadata(code(rejected), rejected.to_string(), metadata)
}

fn code(rejected: &Rejected) -> Code {
    match rejected {
        _ if rejected.is_timeout() => Code::DeadlineExceeded,
        _ if rejected.is_rate_limited() || rejected.is_full() => Code::ResourceExhausted,
        _ if is_our_fault(rejected) => Code::Internal,
        _ => Code::Unavailable,
    }
}

/// Rounded up, for who comes back early is refused again; as long as the protocol can say.
fn millis(wait: Duration) -> i32 {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).unwrap_or(i32::MAX)
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::io;

    use super::*;
    use crate::error::{Error, Reason};

    #[test]
    fn a_refusal_becomes_the_code_of_its_reason() {
        let after = Duration::from_secs(1);
        for (reason, expected) in [
            (Reason::TimedOut { after }, Code::DeadlineExceeded),
            (Reason::DeadlineExceeded, Code::DeadlineExceeded),
            (Reason::RateLimited, Code::ResourceExhausted),
            (Reason::Full { limit: 1 }, Code::ResourceExhausted),
            (Reason::QueueFull { limit: 1 }, Code::ResourceExhausted),
            (Reason::WaitedTooLong { after }, Code::ResourceExhausted),
            (Reason::Throttled, Code::Unavailable),
            (Reason::Open, Code::Unavailable),
            (Reason::Unresolved, Code::Unavailable),
            (Reason::NoInstance, Code::Unavailable),
            (Reason::BadAddress, Code::Unavailable),
            (Reason::Panicked, Code::Internal),
            (Reason::NoService, Code::Internal),
        ] {
            let status = Status::from(Rejected::new("layer", reason));
            assert_eq!(status.code(), expected, "{reason:?}");
            assert!(status.metadata().get(PUSHBACK).is_none(), "{reason:?}");
            assert_eq!(status.as_rejected().unwrap().reason(), reason);
        }
    }

    #[test]
    fn pushback_is_in_milliseconds_rounded_up_within_what_the_protocol_can_say() {
        for (wait, expected) in [
            (Duration::ZERO, "0"),
            (Duration::from_nanos(1), "1"),
            (Duration::from_millis(1500), "1500"),
            (Duration::MAX, "2147483647"),
        ] {
            let open = Rejected::new("circuit breaker", Reason::Open).retry_after(wait);
            let status = Status::from(open);
            assert_eq!(status.metadata().get(PUSHBACK).unwrap(), expected);
        }
    }

    #[test]
    fn a_fault_on_purpose_is_no_refusal_and_one_error_answers_several() {
        let mut injected = Status::from(Injected);
        assert_eq!(injected.code(), Code::Unavailable);
        assert!(injected.as_rejected().is_none());
        let open = Rejected::new("circuit breaker", Reason::Open);
        let shared = ShareErrors.share(&mut Status::from(open));
        assert!(shared.as_rejected().is_some());
        assert!(ShareErrors.share(&mut injected).source().is_some());
    }

    #[test]
    fn a_status_keeps_what_the_error_says_and_the_error_itself() {
        let not_found = status(Status::not_found("no such order"));
        assert_eq!(not_found.code(), Code::NotFound);

        // A refusal that became a status on its way is not one of ours again.
        let refused = Status::from(Rejected::new("circuit breaker", Reason::Open));
        assert_eq!(status(refused).code(), Code::Unavailable);

        let full = Rejected::new("bulkhead", Reason::Full { limit: 1 });
        let typed = status(Error::<io::Error>::from(full));
        assert_eq!(typed.code(), Code::ResourceExhausted);
        assert!(typed.as_rejected().is_some_and(Rejected::is_full));

        let unknown = status(Error::Inner(io::Error::other("broken pipe")));
        assert_eq!(unknown.code(), Code::Unknown);
        let cause = unknown.source().and_then(|error| error.source());
        assert!(cause.is_some_and(|cause| cause.is::<io::Error>()));
    }
}
