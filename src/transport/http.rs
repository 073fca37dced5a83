//! What HTTP says about trying again: which requests are safe to repeat, which answers ask for it, and when. And a body
//! that breaks off, to try what a client makes of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Buf;
use http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::classify::Outcome;
use crate::error::BoxError;

/// Which answers are failures, and which of them are worth another attempt.
///
/// Statuses from 500 are failures of the peer; 429, and 503 with `Retry-After`, say that it has too much to do.
/// 429, 502, 503 and 504 are tried again if the request is [idempotent].
#[derive(Clone, Debug)]
pub struct HttpRules {
    retried: Vec<StatusCode>,
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
        }
    }

    /// Tries again on `status` as well: 500, for services where it is a fault of the instance rather than of the
    /// request.
    #[must_use]
    pub fn retry_status(mut self, status: StatusCode) -> Self {
        self.retried.push(status);
        self
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

pin_project! {
    /// A body that may break off, as one does whose connection is reset; for
    /// [`ChaosLayer::cut`](crate::layers::chaos::ChaosLayer::cut).
    ///
    /// ```
    /// use buttress::layers::chaos::Chaos;
    /// use buttress::transport::http::CutBody;
    ///
    /// // Of an answer that is to be cut, no more than 100 bytes arrive.
    /// let layer = Chaos::new("prices", 42).layer().cut(|answer: http::Response<String>, cut: bool| {
    ///     answer.map(|body| CutBody::new(body, cut.then_some(100)))
    /// });
    /// ```
    #[derive(Debug)]
    pub struct CutBody<B> {
        #[pin]
        inner: B,
        rest: Rest,
    }
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    Whole,
    Bytes(u64),
    Over,
}

impl<B> CutBody<B> {
    /// `inner` as it is, or only its first parts that have no more than so many bytes together, and then an
    /// [`io::Error`] of kind `UnexpectedEof`. A shorter body breaks off where it would have ended.
    pub fn new(inner: B, cut_after: Option<u64>) -> Self {
        let rest = cut_after.map_or(Rest::Whole, Rest::Bytes);
        Self { inner, rest }
    }
}

impl<B> Body for CutBody<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if let Rest::Over = this.rest {
            return Poll::Ready(None);
        }
        let frame = ready!(this.inner.poll_frame(cx)).map(|it| it.map_err(Into::into));
        let Rest::Bytes(rest) = this.rest else {
            return Poll::Ready(frame);
        };
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref(),
            Some(Err(_)) => return Poll::Ready(frame),
            None => None,
        };
        // The end and the trailers, which stand for it, never arrive.
        match data.and_then(|data| rest.checked_sub(data.remaining() as u64)) {
            Some(left) => {
                *rest = left;
                Poll::Ready(frame)
            }
            None => {
                *this.rest = Rest::Over;
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "cut short on purpose");
                Poll::Ready(Some(Err(cut.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.rest {
            Rest::Whole => self.inner.is_end_stream(),
            Rest::Bytes(_) => false,
            Rest::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Whole => self.inner.size_hint(),
            Rest::Bytes(_) | Rest::Over => SizeHint::default(),
        }
    }
}

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
