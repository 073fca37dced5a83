use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::{fmt, mem};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// A body that can be sent again: what was read of it is kept, up to a limit of bytes, as long as there is another of
/// the same content that may want it.
///
/// It is read when it is sent and no sooner. Past the limit everything kept is let go, and the one that has come furthest
/// goes on alone. A body that says at the start that it is longer is kept at no time.
///
/// ```
/// use buttress::layers::retry::RetryLayer;
/// use buttress::transport::http::{HttpRules, ReplayBody};
/// use buttress::BoxError;
/// use http_body_util::Full;
/// use tower::ServiceBuilder;
///
/// type Upload = http::Request<Full<bytes::Bytes>>;
///
/// let uploads = ServiceBuilder::new()
///     .map_request(|upload: Upload| upload.map(|body| ReplayBody::new(body, 64 * 1024)))
///     .layer(RetryLayer::new(3).rules(HttpRules::new()))
///     .service_fn(|_: http::Request<ReplayBody<_>>| async {
///         Ok::<_, BoxError>(http::Response::new(()))
///     });
/// # let _ = tower::Service::<Upload>::call(&mut { uploads }, Upload::default());
/// ```
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// How many parts it has given.
    given: usize,
}

/// What all of the same content share.
struct Shared<B> {
    rest: Pin<Box<B>>,
    /// All parts read so far, unless they were let go.
    kept: Vec<Part>,
    /// How many parts were read.
    read: usize,
    /// How many bytes more may be kept; `None` once none are.
    room: Option<usize>,
    end: Option<End>,
    /// Of those that wait for the next part.
    waiting: Vec<Waker>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Failed,
}

impl<B: Body> ReplayBody<B> {
    /// `body`, which can be sent again if it has no more than `limit` bytes.
    pub fn new(body: B, limit: usize) -> Self {
        let fits = body.size_hint().lower() <= limit as u64;
        let shared = Shared {
            rest: Box::pin(body),
            kept: Vec::new(),
            read: 0,
            room: fits.then_some(limit),
            end: None,
            waiting: Vec::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            given: 0,
        }
    }

    /// Whether it could be sent again now, from its beginning.
    pub fn can_replay(&self) -> bool {
        let shared = self.lock();
        shared.room.is_some() && shared.end != Some(End::Failed)
    }

    /// Another of the same content, from its beginning; `None` if too much was read, or reading failed.
    pub fn replay(&self) -> Option<Self> {
        self.can_replay().then(|| Self {
            shared: Arc::clone(&self.shared),
            given: 0,
        })
    }
}

impl<B> ReplayBody<B> {
    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(part) = ready!(self.poll_part(cx)) else {
            return Poll::Ready(None);
        };
        self.given += 1;
        Poll::Ready(Some(part.map(|part| match part {
            Part::Data(data) => Frame::data(data),
            Part::Trailers(trailers) => Frame::trailers(trailers),
        })))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        let ended = shared.end == Some(End::Whole) || shared.rest.is_end_stream();
        self.given == shared.read && ended && shared.end != Some(End::Failed)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.lock();
        let rest = match shared.end {
            Some(_) => SizeHint::with_exact(0),
            None => shared.rest.size_hint(),
        };
        let kept = shared.kept.iter().skip(self.given).map(Part::len);
        let kept: u64 = kept.sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body<Error: Into<BoxError>>> ReplayBody<B> {
    /// The next part: one that was kept, or one that is read now.
    fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BoxError>>> {
        // Nobody else can come to be: that takes a body to replay.
        let alone = Arc::strong_count(&self.shared) == 1;
        let mut shared = self.lock();
        if self.given < shared.read {
            let part = shared.kept.get(self.given).cloned();
            return Poll::Ready(Some(part.ok_or_else(gone)));
        }
        match shared.end {
            Some(End::Whole) => return Poll::Ready(None),
            Some(End::Failed) => return Poll::Ready(Some(Err(gone()))),
            None => {}
        }
        let part = ready!(shared.poll_rest(cx, alone));
        let waiting = mem::take(&mut shared.waiting);
        drop(shared);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(part)
    }
}

impl<B: Body<Error: Into<BoxError>>> Shared<B> {
    /// Reads a part, and keeps it unless the reader is `alone`.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        alone: bool,
    ) -> Poll<Option<Result<Part, BoxError>>> {
        let Poll::Ready(frame) = self.rest.as_mut().poll_frame(cx) else {
            if !self.waiting.iter().any(|one| one.will_wake(cx.waker())) {
                self.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.end = Some(End::Failed);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.end = Some(End::Whole);
                return Poll::Ready(None);
            }
        };
        let part = match frame.into_data() {
            Ok(mut data) => Part::Data(data.copy_to_bytes(data.remaining())),
            Err(frame) => Part::Trailers(frame.into_trailers().unwrap_or_default()),
        };
        self.read += 1;
        self.keep(&part, alone);
        Poll::Ready(Some(Ok(part)))
    }

    fn keep(&mut self, part: &Part, alone: bool) {
        // One byte at the least, so that parts of nothing do not fill the memory.
        let length = usize::try_from(part.len()).unwrap_or(usize::MAX).max(1);
        self.room = match alone {
            true => None,
            false => self.room.and_then(|room| room.checked_sub(length)),
        };
        match self.room {
            Some(_) => self.kept.push(part.clone()),
            None => self.kept = Vec::new(),
        }
    }
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

/// Whoever is told when the next part is there may be gone: then another has to ask.
impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let waiting = mem::take(&mut self.lock().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

fn gone() -> BoxError {
    "the body was read too far, or failed, and cannot be sent again".into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    /// Gives what is pushed to it.
    #[derive(Clone, Default)]
    struct Source(Arc<Mutex<Parts>>);

    /// Those to come, `None` for the end, and who waits for them.
    type Parts = (VecDeque<Option<Frame<Bytes>>>, Option<Waker>);

    impl Source {
        fn of(parts: &[&'static str]) -> Self {
            let source = Self::default();
            for part in parts {
                source.push(part);
            }
            source.0.lock().unwrap().0.push_back(None);
            source
        }

        fn push(&self, part: &'static str) {
            let mut state = self.0.lock().unwrap();
            state.0.push_back(Some(Frame::data(part.into())));
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        }
    }

    impl Body for Source {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let mut state = self.0.lock().unwrap();
            match state.0.pop_front() {
                Some(frame) => Poll::Ready(frame.map(Ok)),
                None => {
                    state.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }
    }

    async fn next<B: Body<Error: Into<BoxError>>>(
        body: &mut ReplayBody<B>,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    async fn text<B: Body<Error: Into<BoxError>>>(body: &mut ReplayBody<B>) -> String {
        let mut text = String::new();
        while let Some(frame) = next(body).await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Ok(Err(_)) => text.push_str(" with trailers"),
                Err(error) => return error.to_string(),
            }
        }
        text
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_and_then_what_follows() {
        let source = Source::of(&["one ", "two ", "three"]);
        let trailers = Frame::trailers(HeaderMap::new());
        source.0.lock().unwrap().0.insert(3, Some(trailers));
        let original = ReplayBody::new(source, 100);
        // The first attempt breaks off after so many parts.
        for parts in [0, 1, 3, 9] {
            let mut attempt = original.replay().unwrap();
            for _ in 0..parts {
                next(&mut attempt).await;
            }
        }
        let mut last = original;
        assert_eq!(text(&mut last).await, "one two three with trailers");
        assert!(last.is_end_stream());
    }

    #[tokio::test]
    async fn nothing_is_read_before_it_is_sent() {
        let source = Source::of(&["one"]);
        let original = ReplayBody::new(source.clone(), 100);
        let _copy = original.replay().unwrap();
        assert_eq!(source.0.lock().unwrap().0.len(), 2);
    }

    #[tokio::test]
    async fn past_the_limit_it_is_sent_once_and_to_its_end() {
        for (limit, again) in [(8, true), (7, false), (0, false)] {
            let original = ReplayBody::new(Source::of(&["four", "more"]), limit);
            let mut attempt = original.replay().unwrap();
            assert_eq!(text(&mut attempt).await, "fourmore", "{limit}");
            assert_eq!(original.replay().is_some(), again, "{limit}");
            assert_eq!(original.lock().kept.is_empty(), !again, "{limit}");
            let mut late = original;
            let expected = if again {
                "fourmore"
            } else {
                "cannot be sent again"
            };
            assert!(text(&mut late).await.ends_with(expected), "{limit}");
        }
    }

    #[tokio::test]
    async fn a_body_that_says_that_it_is_too_long_is_not_kept_at_all() {
        let full = |text: &'static str| http_body_util::Full::new(Bytes::from(text));
        assert!(ReplayBody::new(full("eight by"), 7).replay().is_none());
        assert!(ReplayBody::new(full("eight by"), 8).replay().is_some());
    }

    #[tokio::test]
    async fn the_last_one_keeps_nothing() {
        let original = ReplayBody::new(Source::of(&["one", "two"]), 100);
        drop(original.replay());
        let mut last = original;
        next(&mut last).await;
        assert!(last.lock().kept.is_empty());
        assert_eq!(text(&mut last).await, "two");
    }

    #[tokio::test]
    async fn the_length_is_known_where_the_bodys_is() {
        let original = ReplayBody::new(http_body_util::Full::new(Bytes::from("four")), 100);
        let mut copy = original.replay().unwrap();
        assert_eq!(copy.size_hint().exact(), Some(4));
        next(&mut copy).await;
        assert_eq!(copy.size_hint().exact(), Some(0));
        assert_eq!(original.size_hint().exact(), Some(4));
        assert!(copy.is_end_stream() && !original.is_end_stream());
    }

    #[test]
    fn two_that_are_sent_at_once_both_hear_of_the_next_part() {
        let source = Source::default();
        let original = ReplayBody::new(source.clone(), 100);
        let (mut first, mut second) = (original.replay().unwrap(), original.replay().unwrap());
        let mut polls = [
            task::spawn(next(&mut first)),
            task::spawn(next(&mut second)),
        ];
        polls
            .iter_mut()
            .for_each(|poll| assert_pending!(poll.poll()));
        source.push("one");
        // Only the second was told; whoever asks first tells the other.
        assert!(polls[1].is_woken());
        assert!(assert_ready!(polls[1].poll()).is_some());
        assert!(polls[0].is_woken());
        assert!(assert_ready!(polls[0].poll()).is_some());
    }

    #[test]
    fn one_that_goes_leaves_the_asking_to_the_others() {
        let source = Source::default();
        let original = ReplayBody::new(source.clone(), 100);
        let (mut first, mut second) = (original.replay().unwrap(), original.replay().unwrap());
        let mut waits = task::spawn(next(&mut first));
        assert_pending!(waits.poll());
        assert_pending!(task::spawn(next(&mut second)).poll());
        drop(second);
        assert!(waits.is_woken());
        assert_pending!(waits.poll());
        source.push("one");
        assert!(waits.is_woken());
    }
}
