//! What HTTP says about trying again: which requests are safe to repeat, which answers ask for it, and when. And three
//! bodies: a [`ReplayBody`] can be sent again, a [`HeldBody`] holds a permit for as long as it is read, a [`CutBody`]
//! breaks off on purpose. How a deadline travels is in [`deadline`]. A request says how much it matters
//! [by an extension](ByExtension).

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use http::{Method, StatusCode};

use crate::classify::Outcome;

mod attempt;
mod cloned;
mod cut;
pub mod deadline;
mod held;
mod priority;
mod replay;
mod rules;

#[cfg(feature = "tonic")]
pub(crate) use attempt::PREVIOUS_ATTEMPTS;
pub use attempt::{Attempt, Attempts};
pub use cut::CutBody;
pub use held::HeldBody;
pub use priority::ByExtension;
pub use replay::ReplayBody;
#[cfg(feature = "tonic")]
pub(crate) use rules::copy;

/// Which answers are failures, and which of them are worth another attempt.
///
/// Statuses from 500 are failures of the peer; 429, and 503 with `Retry-After`, say that it has too much to do.
/// 429, 502, 503 and 504 are tried again if the request is [idempotent].
///
/// They are [rules](crate::layers::retry::Rules) for a retry, a [`Classify`](crate::Classify) for whatever counts, and
/// say to a hedge what to [copy](crate::layers::hedge::CopyRequest):
///
/// ```
/// use buttress::layers::hedge::HedgeLayer;
/// use buttress::layers::retry::RetryLayer;
/// use buttress::transport::http::HttpRules;
///
/// let retry = RetryLayer::new(3).rules(HttpRules::new());
/// let hedge = HedgeLayer::default().copy(HttpRules::new()).classify(HttpRules::new());
/// ```
///
/// The bodies of requests that are sent again are `Clone`, or [`ReplayBody`]s.
#[derive(Clone, Debug)]
pub struct HttpRules {
    retried: Vec<StatusCode>,
    attempt_header: Option<HeaderName>,
    replay_limit: usize,
}

impl HttpRules {
    /// The rules described above.
    pub fn new() -> Self {
        Self {
            retried: vec![
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            attempt_header: None,
            replay_limit: REPLAY_LIMIT,
        }
    }

    /// Tries again on `status` as well: 500, for services where it is a fault of the instance rather than of the
    /// request.
    #[must_use]
    pub fn retry_status(mut self, status: StatusCode) -> Self {
        self.retried.push(status);
        self
    }

    /// Says in the header `name` of each attempt which one it is, so that the peer can tell retries from traffic: 1 for
    /// the first, as in Envoy's `x-envoy-attempt-count`. In gRPC's `grpc-previous-rpc-attempts` it is how many went
    /// before, and the first has none. The default is no header.
    #[must_use]
    pub fn attempt_header(mut self, name: HeaderName) -> Self {
        self.attempt_header = Some(name);
        self
    }

    /// Keeps up to so many bytes of a streamed body while it is sent, so that it can be sent again; one that is longer is
    /// sent once. This is for a client that is given streams. The default is 64 KiB.
    #[must_use]
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// How much of a streamed body is kept, for [`ReplayBody::new`].
    pub fn kept_bytes(&self) -> usize {
        self.replay_limit
    }

    pub(crate) fn announce(&self, attempt: Attempt, headers: &mut HeaderMap) {
        if let Some(name) = &self.attempt_header {
            attempt.announce(name, headers);
        }
    }

    /// Whether an answer of this status is worth another attempt.
    pub fn is_retried(&self, status: StatusCode) -> bool {
        self.retried.contains(&status)
    }

    /// What an answer says about the peer; `now` is the calendar, for a `Retry-After` that is a date.
    pub fn classify(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Outcome {
        let wait = || retry_after(headers, now);
        match status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Overload(wait()),
            StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(RETRY_AFTER) => {
                Outcome::Overload(wait())
            }
            status if status.is_server_error() => Outcome::Failure,
            _ => Outcome::Success,
        }
    }
}

impl Default for HttpRules {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether sending the request twice does no more than sending it once: an idempotent method of RFC 9110 §9.2.2, or an
/// `Idempotency-Key`.
pub fn idempotent(method: &Method, headers: &HeaderMap) -> bool {
    let by_method = method.is_idempotent();
    by_method || headers.contains_key(IDEMPOTENCY_KEY)
}

/// The wait that a `Retry-After` header asks for, in seconds or as a date (RFC 9110 §10.2.3). A date that has passed
/// is no wait. `None` if there is none or it cannot be read.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// More than most requests have, and little beside what a connection holds.
const REPLAY_LIMIT: usize = 64 * 1024;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        headers
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the date of the RFC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let wait = retry_after(&headers(value), now);
            assert_eq!(wait, expected.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn an_answer_is_classified_by_its_status() {
        let now = SystemTime::UNIX_EPOCH;
        let wait = Some(Duration::from_secs(9));
        let none = HeaderMap::new();
        for (status, headers, expected) in [
            (200, &none, Outcome::Success),
            (404, &none, Outcome::Success),
            (429, &none, Outcome::Overload(None)),
            (429, &headers("9"), Outcome::Overload(wait)),
            (500, &headers("9"), Outcome::Failure),
            (503, &none, Outcome::Failure),
            (503, &headers("9"), Outcome::Overload(wait)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let outcome = HttpRules::new().classify(status, headers, now);
            assert_eq!(outcome, expected, "{status}");
        }
    }

    #[test]
    fn a_request_is_idempotent_by_its_method_or_its_key() {
        let mut headers = HeaderMap::new();
        assert!(idempotent(&Method::GET, &headers));
        assert!(idempotent(&Method::PUT, &headers));
        assert!(!idempotent(&Method::POST, &headers));
        assert!(!idempotent(&Method::PATCH, &headers));
        headers.insert(IDEMPOTENCY_KEY, "17".parse().unwrap());
        assert!(idempotent(&Method::POST, &headers));
    }
}
