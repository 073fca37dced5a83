use std::collections::BTreeMap;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower::Service;
use tower::util::Oneshot;

use super::Batch;
use crate::clock::{self, Sleep};

pin_project! {
    /// The call of a batch: what each seat gets of its answer.
    pub struct BatchCall<S, B>
    where
        S: Service<B::Merged, Response = B::Answer>,
        B: Batch,
    {
        batch: Arc<B>,
        requests: Requests<B::Request>,
        inner: Option<S>,
        due: Instant,
        #[pin]
        stage: Stage<S, B>,
    }
}

pin_project! {
    // Gathering (until it is full or due) ─▶ Calling
    #[project = StageProj]
    enum Stage<S, B>
    where
        S: Service<B::Merged, Response = B::Answer>,
        B: Batch,
    {
        Gathering {
            #[pin]
            timer: Option<Sleep>,
        },
        Calling {
            #[pin]
            call: Oneshot<S, B::Merged>,
            seats: Vec<u64>,
            sent: Vec<B::Request>,
        },
    }
}

impl<S, B> BatchCall<S, B>
where
    S: Service<B::Merged, Response = B::Answer>,
    B: Batch,
{
    /// A batch that is sent at `due`, or before if it is full.
    pub(super) fn new(
        batch: Arc<B>,
        requests: Requests<B::Request>,
        inner: S,
        due: Instant,
    ) -> Self {
        Self {
            batch,
            requests,
            inner: Some(inner),
            due,
            stage: Stage::Gathering { timer: None },
        }
    }
}

impl<S, B> Future for BatchCall<S, B>
where
    S: Service<B::Merged, Response = B::Answer>,
    B: Batch,
{
    type Output = Result<BTreeMap<u64, B::Response>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProj::Gathering { mut timer } => {
                    if !this.requests.poll_full(cx) {
                        if timer.is_none() {
                            timer.set(Some(clock::until(*this.due)));
                        }
                        if let Some(timer) = timer.as_pin_mut() {
                            ready!(timer.poll(cx));
                        }
                    }
                    let (seats, sent): (_, Vec<_>) = this.requests.close().into_iter().unzip();
                    let inner = this.inner.take().expect("not called yet");
                    Stage::Calling {
                        call: Oneshot::new(inner, this.batch.merge(&sent)),
                        seats,
                        sent,
                    }
                }
                StageProj::Calling { call, seats, sent } => {
                    let responses = match ready!(call.poll(cx)) {
                        Ok(answer) => this.batch.split(answer, sent),
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    let parts = seats.iter().copied().zip(responses);
                    let parts = parts.filter_map(|(seat, part)| Some((seat, part?)));
                    return Poll::Ready(Ok(parts.collect()));
                }
            };
            this.stage.set(next);
        }
    }
}

/// The requests of a batch until it is sent, by the seats of their callers.
pub(super) struct Requests<Req>(Arc<Mutex<Gathered<Req>>>);

pub(super) struct Gathered<Req> {
    pub(super) by_seat: BTreeMap<u64, Req>,
    /// It is full, or was sent.
    pub(super) closed: bool,
    /// Wakes the one who polls the batch when it is full.
    waker: Option<Waker>,
}

impl<Req> Requests<Req> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Gathered<Req>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is full. Unless it is, `cx` is woken when it will be.
    fn poll_full(&self, cx: &Context<'_>) -> bool {
        let mut gathered = self.lock();
        if gathered.closed {
            return true;
        }
        let old = gathered.waker.replace(cx.waker().clone());
        drop(gathered);
        drop(old);
        false
    }

    fn close(&self) -> BTreeMap<u64, Req> {
        let mut gathered = self.lock();
        gathered.closed = true;
        mem::take(&mut gathered.by_seat)
    }
}

impl<Req> Gathered<Req> {
    /// Adds a request, and says whom to wake now that it is full.
    pub(super) fn add(&mut self, seat: u64, request: Req, size: usize) -> Option<Waker> {
        self.by_seat.insert(seat, request);
        self.closed = self.by_seat.len() >= size;
        if self.closed { self.waker.take() } else { None }
    }
}

impl<Req> Default for Requests<Req> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Gathered {
            by_seat: BTreeMap::new(),
            closed: false,
            waker: None,
        })))
    }
}

impl<Req> Clone for Requests<Req> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
