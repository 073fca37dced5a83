use ::reqwest::{Body, Request};

use crate::transport::http::ReplayBody;

/// A request on its way: its body apart, if that is a stream, so that it can be sent again.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) request: Request,
    stream: Option<ReplayBody<Body>>,
}

impl Outgoing {
    /// `request`, of whose streamed body up to so many bytes are kept.
    pub(super) fn new(mut request: Request, limit: usize) -> Self {
        let is_stream = |body: &&mut Option<Body>| {
            let body = body.as_ref();
            body.is_some_and(|body| body.as_bytes().is_none())
        };
        let stream = Some(request.body_mut()).filter(is_stream);
        let stream = stream.and_then(Option::take);
        Self {
            stream: stream.map(|body| ReplayBody::new(body, limit)),
            request,
        }
    }

    /// Another that is sent as this is; `None` if its body can be sent only once.
    pub(super) fn replay(&self) -> Option<Self> {
        let stream = match &self.stream {
            Some(stream) => Some(stream.replay()?),
            None => None,
        };
        let request = self.request.try_clone()?;
        Some(Self { request, stream })
    }

    /// Whether its body can be sent again, as far as it was read.
    pub(super) fn can_replay(&self) -> bool {
        self.stream.as_ref().is_none_or(ReplayBody::can_replay)
    }

    /// The request with its body.
    pub(super) fn into_request(self) -> Request {
        let mut request = self.request;
        if let Some(stream) = self.stream {
            *request.body_mut() = Some(Body::wrap(stream));
        }
        request
    }
}
