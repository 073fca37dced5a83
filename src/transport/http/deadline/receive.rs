use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http::header::HeaderName;
use tower::{Layer, Service};

use super::header::{Header, MILLIS};
use crate::deadline::{Deadline, Scoped};

/// Puts the deadline of each request in force around the service inside: the earliest of what the headers say, of the
/// [`Deadline`] in the request's extensions, and of one that is in force around it already.
///
/// It is in the request's extensions afterwards. What cannot be read in a header is ignored. A time of 0 has passed:
/// layers inside refuse the request.
///
/// It refuses nothing itself, so it suits services that do not fail, such as an axum router: a
/// [timeout](crate::layers::timeout) inside gives up what the deadline ends.
#[derive(Clone, Debug)]
pub struct ReceiveDeadlineLayer {
    millis: Arc<[HeaderName]>,
    most: Option<Duration>,
}

impl ReceiveDeadlineLayer {
    /// Reads `grpc-timeout` and `x-request-timeout-ms`. No request is bounded that does not ask to be; see
    /// [`most`](Self::most).
    pub fn new() -> Self {
        Self {
            millis: Arc::from([MILLIS.clone()]),
            most: None,
        }
    }

    /// Reads the milliseconds in `name` too, such as Envoy's `x-envoy-expected-rq-timeout-ms`.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.millis = self.millis.iter().cloned().chain([name]).collect();
        self
    }

    /// Gives no request longer than `limit`, whatever its caller says, and whether it says anything. By default a
    /// request has as long as it asks for.
    #[must_use]
    pub fn most(mut self, limit: Duration) -> Self {
        self.most = Some(limit);
        self
    }

    fn deadline<B>(&self, request: &Request<B>) -> Option<Deadline> {
        let headers = request.headers();
        let millis = self.millis.iter().map(Header::Millis);
        let limit = millis
            .chain([Header::Grpc])
            .filter_map(|header| header.read(headers))
            .chain(self.most)
            .min();
        let sent = limit.map(Deadline::within);
        let known = request.extensions().get().copied();
        [sent, known, Deadline::current()]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Default for ReceiveDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReceiveDeadlineLayer {
    type Service = ReceiveDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReceiveDeadline {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of a [`ReceiveDeadlineLayer`].
#[derive(Clone, Debug)]
pub struct ReceiveDeadline<S> {
    inner: S,
    layer: ReceiveDeadlineLayer,
}

impl<S, B> Service<Request<B>> for ReceiveDeadline<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Scoped<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let deadline = self.layer.deadline(&request);
        if let Some(deadline) = deadline.filter(|it| request.extensions().get() != Some(it)) {
            request.extensions_mut().insert(deadline);
        }
        Scoped::call(deadline, || self.inner.call(request))
    }
}
