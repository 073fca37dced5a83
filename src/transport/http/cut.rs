use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::error::BoxError;

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
