use std::collections::BTreeMap;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower::Service;
use tower::util::Oneshot;

use super::flight::{Flight, Part, Seat};
use super::future::{Group, Voice};
use super::{Batch, BatchLayer, Share};
use crate::clock::{self, Sleep};
use crate::error::{Reason, Rejected};

/// A caller and those of the same batch.
pub struct SameBatch<S: Service<B::Merged, Response = B::Answer>, B: Batch, X> {
    pub(super) open: Open<S, B>,
    pub(super) inner: S,
    pub(super) layer: Arc<BatchLayer<B, X>>,
    /// Those of its batch, once it has joined one.
    pub(super) requests: Option<Requests<B::Request>>,
}

/// The batch that was begun last. Locked before its requests, and they before its flight.
pub(super) struct Open<S: Service<B::Merged, Response = B::Answer>, B: Batch>(
    Arc<Mutex<Option<Gathering<S, B>>>>,
);

pub(super) struct Gathering<S: Service<B::Merged, Response = B::Answer>, B: Batch> {
    flight: Arc<Flight<BatchCall<S, B>>>,
    requests: Requests<B::Request>,
}

impl<S: Service<B::Merged, Response = B::Answer>, B: Batch> Open<S, B> {
    fn lock(&self) -> MutexGuard<'_, Option<Gathering<S, B>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service<B::Merged, Response = B::Answer>, B: Batch> Default for Open<S, B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Service<B::Merged, Response = B::Answer>, B: Batch> Clone for Open<S, B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, B, X> Group for SameBatch<S, B, X>
where
    S: Service<B::Merged, Response = B::Answer, Error: From<Rejected>> + Clone,
    B: Batch,
    X: Share<S::Error>,
{
    type Request = B::Request;
    type Call = BatchCall<S, B>;
    type Response = B::Response;
    type Error = S::Error;

    fn join(&mut self, request: B::Request) -> Seat<Self::Call> {
        let mut open = self.open.lock();
        let size = self.layer.size;
        let requests = match &*open {
            Some(Gathering { flight, requests }) => {
                let mut gathered = requests.lock();
                let seat = (!gathered.closed).then(|| flight.join()).flatten();
                if let Some(seat) = seat {
                    let waker = gathered.add(seat.number(), request, size);
                    drop(gathered);
                    self.requests = Some(requests.clone());
                    drop(open);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    return seat;
                }
                Requests::default()
            }
            None => Requests::default(),
        };
        let seat = Flight::begin(BatchCall {
            batch: Arc::clone(&self.layer.batch),
            requests: requests.clone(),
            inner: Some(self.inner.clone()),
            due: clock::after(clock::now(), self.layer.window),
            stage: Stage::Gathering { timer: None },
        });
        requests.lock().add(seat.number(), request, size);
        self.requests = Some(requests.clone());
        let before = open.replace(Gathering {
            flight: Arc::clone(seat.flight()),
            requests,
        });
        drop(open);
        drop(before);
        seat
    }

    fn part(
        &self,
        seat: u64,
        output: Part<'_, Result<BTreeMap<u64, B::Response>, S::Error>>,
    ) -> Result<Result<B::Response, S::Error>, Reason> {
        let response = match output {
            Part::Last(Err(error)) => return Ok(Err(error)),
            Part::Another(Err(error)) => return Ok(Err(self.layer.share.share(error))),
            Part::Last(Ok(mut responses)) => responses.remove(&seat),
            Part::Another(Ok(responses)) => responses.remove(&seat),
        };
        response.map(Ok).ok_or(Reason::NotInAnswer)
    }

    fn leave(&self, seat: Seat<Self::Call>) {
        // Before the seat, whose heir may send the batch at once.
        if let Some(requests) = &self.requests {
            let request = requests.lock().by_seat.remove(&seat.number());
            drop(request);
        }
        let flight = Arc::clone(seat.flight());
        drop(seat);
        if flight.is_under_way() {
            return;
        }
        let mut open = self.open.lock();
        let ended = open.take_if(|last| Arc::ptr_eq(&last.flight, &flight));
        drop(open);
        drop(ended);
    }

    fn voice(&self) -> &Voice {
        &self.layer.voice
    }
}

/// The requests of a batch until it is sent, by the seats of their callers.
pub(super) struct Requests<Req>(Arc<Mutex<Gathered<Req>>>);

struct Gathered<Req> {
    by_seat: BTreeMap<u64, Req>,
    /// It is full, or was sent.
    closed: bool,
    /// Wakes the one who polls the batch when it is full.
    waker: Option<Waker>,
}

impl<Req> Requests<Req> {
    fn lock(&self) -> MutexGuard<'_, Gathered<Req>> {
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
    fn add(&mut self, seat: u64, request: Req, size: usize) -> Option<Waker> {
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
