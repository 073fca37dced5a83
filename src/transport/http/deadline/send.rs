use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http::header::{HeaderMap, HeaderName};
use tower::{Layer, Service};

use super::SendDeadlineFuture;
use super::header::{Header, MILLIS};
use crate::clock;
use crate::deadline::{Deadline, Scoped};
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// Says in a header what is left of each request's deadline: of the [`Deadline`] in its extensions or of the one in
/// force, whichever is earlier. A request without one stays as it is.
///
/// A gRPC request, known by its content type, has it in `grpc-timeout`; any other in a header of milliseconds. It is
/// rounded down, and a header that says less already stays. A request of which nothing is left to say is refused with
/// `DeadlineExceeded` before it is sent.
///
/// It belongs at the bottom, inside retries and the timeout of an attempt, so that each attempt says what it has.
#[derive(Clone, Debug)]
pub struct SendDeadlineLayer {
    millis: HeaderName,
    margin: Duration,
    observer: Observer,
}

impl SendDeadlineLayer {
    /// Says all that is left, in `x-request-timeout-ms` where it is not gRPC.
    pub fn new() -> Self {
        Self {
            millis: MILLIS.clone(),
            margin: Duration::ZERO,
            observer: Observer::default(),
        }
    }

    /// Says the milliseconds in this header.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.millis = name;
        self
    }

    /// Keeps so much of what is left for the way there and back, and for what this service does with the answer. The
    /// default is none: only you know the way.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Tells `observer` of each request that was not sent.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// Says in `headers` what is left until `deadline`.
    pub(crate) fn write(
        &self,
        deadline: Deadline,
        headers: &mut HeaderMap,
    ) -> Result<(), Rejected> {
        let left = deadline.remaining(clock::now());
        let left = left.saturating_sub(self.margin);
        let header = Header::of(headers, &self.millis);
        let said = header.read(headers);
        if header.write(said.map_or(left, |said| said.min(left)), headers) {
            return Ok(());
        }
        let rejected = Rejected::new("deadline header", Reason::DeadlineExceeded);
        Err(self.observer.refused(rejected.unsent()))
    }
}

impl Default for SendDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for SendDeadlineLayer {
    type Service = SendDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SendDeadline {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of a [`SendDeadlineLayer`].
#[derive(Clone, Debug)]
pub struct SendDeadline<S> {
    inner: S,
    layer: SendDeadlineLayer,
}

impl<S, B> Service<Request<B>> for SendDeadline<S>
where
    S: Service<Request<B>>,
    S::Error: From<Rejected>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SendDeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let known = request.extensions().get().copied();
        let deadline = known.into_iter().chain(Deadline::current()).min();
        if let Some(deadline) = deadline {
            if let Err(rejected) = self.layer.write(deadline, request.headers_mut()) {
                return SendDeadlineFuture::refused(rejected);
            }
        }
        SendDeadlineFuture::running(Scoped::call(deadline, || self.inner.call(request)))
    }
}
