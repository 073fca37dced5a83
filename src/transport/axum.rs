//! Refusals as answers of an `axum` server. See the [guide](crate::docs::transports#axum-a-router).
//!
//! A router takes layers whose errors it never sees. An [`ErrorLayer`](crate::ErrorLayer) at the bottom lets the layers
//! above refuse, and [`respond`] at the top turns what they refused into an answer:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//!
//! use axum::error_handling::HandleErrorLayer;
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use buttress::ErrorLayer;
//! use buttress::layers::bulkhead::Bulkhead;
//! use buttress::layers::timeout::TimeoutLayer;
//! use buttress::transport::axum::respond;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let bulkhead = Bulkhead::new("reports", 10);
//! let app: Router = Router::new()
//!     .route("/report", get(|| std::future::pending::<()>()))
//!     .layer(
//!         ServiceBuilder::new()
//!             .layer(HandleErrorLayer::new(respond))
//!             .layer(bulkhead.layer())
//!             .layer(TimeoutLayer::new(Duration::from_secs(5)).name("reports"))
//!             .layer(ErrorLayer),
//!     );
//!
//! let request = Request::get("/report").body(Body::empty()).unwrap();
//! assert_eq!(app.oneshot(request).await.unwrap().status(), 504);
//! # }
//! ```
//!
//! | refusal | answer |
//! |---|---|
//! | time ran out | 504 |
//! | a rate limit | 429 |
//! | the code or the set-up is at fault: a shared call panicked, a host that cannot be a service | 500 |
//! | any other: a limit, a breaker, no instance | 503 |
//!
//! `Retry-After` says when to come back, in whole seconds, where the refusal knows it. The body is the refusal's own
//! line, which names the layer, its name and the reason; what lies behind it is not told.

use std::time::Duration;

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::is_our_fault;
use crate::error::{AsRejected, Error, Rejected};

/// The answer to `error`, for [`HandleErrorLayer::new`]: that of the refusal in it, or else a plain 500.
///
/// [`HandleErrorLayer::new`]: https://docs.rs/axum/0.8/axum/error_handling/struct.HandleErrorLayer.html#method.new
pub async fn respond<E: AsRejected>(error: E) -> Response {
    match error.as_rejected() {
        Some(rejected) => answer(rejected),
        // What else went wrong is for the log, not for the caller.
        None => (StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response(),
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        answer(&self)
    }
}

impl<E: IntoResponse> IntoResponse for Error<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Rejected(rejected) => rejected.into_response(),
            Self::Inner(error) => error.into_response(),
        }
    }
}

fn answer(rejected: &Rejected) -> Response {
    let after = rejected
        .wait_hint()
        .map(|wait| [(RETRY_AFTER, seconds(wait))]);
    (status(rejected), after, rejected.to_string()).into_response()
}

fn status(rejected: &Rejected) -> StatusCode {
    match rejected {
        _ if rejected.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
        _ if rejected.is_rate_limited() => StatusCode::TOO_MANY_REQUESTS,
        _ if is_our_fault(rejected) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Rounded up: who comes back early is refused again.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add((wait.subsec_nanos() > 0).into())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::{BoxError, Reason};

    #[test]
    fn a_refusal_becomes_the_status_of_its_reason() {
        let after = Duration::from_secs(1);
        for (reason, expected) in [
            (Reason::TimedOut { after }, 504),
            (Reason::DeadlineExceeded, 504),
            (Reason::RateLimited, 429),
            (Reason::CostAboveBurst { cost: 3, burst: 2 }, 429),
            (Reason::Full { limit: 1 }, 503),
            (Reason::QueueFull { limit: 1 }, 503),
            (Reason::WaitedTooLong { after }, 503),
            (Reason::Throttled, 503),
            (Reason::Open, 503),
            (Reason::HalfOpen, 503),
            (Reason::ForcedOpen, 503),
            (Reason::Unresolved, 503),
            (Reason::NoInstance, 503),
            (Reason::BadAddress, 503),
            (Reason::Panicked, 500),
            (Reason::NotInAnswer, 500),
            (Reason::NoService, 500),
            (Reason::TlsNotSetUp, 500),
        ] {
            let response = Rejected::new("layer", reason).into_response();
            assert_eq!(response.status(), expected, "{reason:?}");
            assert!(!response.headers().contains_key(RETRY_AFTER), "{reason:?}");
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_rounded_up() {
        for (wait, expected) in [
            (Duration::ZERO, "0"),
            (Duration::from_nanos(1), "1"),
            (Duration::from_secs(2), "2"),
            (Duration::from_millis(2001), "3"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            let rejected = Rejected::new("rate limit", Reason::RateLimited).retry_after(wait);
            let response = rejected.into_response();
            assert_eq!(response.headers()[RETRY_AFTER], expected, "{wait:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_refusal_is_a_plain_500_and_a_refusal_is_found_in_any_error() {
        let secret: BoxError = io::Error::other("password=hunter2").into();
        assert_eq!(respond(secret).await.status(), 500);
        let open = Rejected::new("circuit breaker", Reason::Open);
        let within: BoxError = io::Error::other(open).into();
        assert_eq!(respond(within).await.status(), 503);
    }
}
