use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body that holds a permit until it was read to its end, failed or was dropped.
    ///
    /// ```
    /// use axum::{body::Body, http::Response};
    /// use buttress::layers::bulkhead::{Bulkhead, Permit};
    /// use buttress::transport::http::HeldBody;
    ///
    /// let downloads = Bulkhead::new("downloads", 4);
    /// let layer = downloads.layer().hold(|response: Response<Body>, permit: Permit| {
    ///     response.map(|body| HeldBody::new(body, permit))
    /// });
    /// ```
    #[derive(Debug)]
    pub struct HeldBody<B, P> {
        #[pin]
        body: B,
        permit: Option<P>,
    }
}

impl<B: Body, P> HeldBody<B, P> {
    /// Holds `permit` as long as `body` has more to come.
    pub fn new(body: B, permit: P) -> Self {
        let permit = (!body.is_end_stream()).then_some(permit);
        Self { body, permit }
    }
}

impl<B: Body, P> Body for HeldBody<B, P> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        // Whoever reads by the length never asks for a frame after the last.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
