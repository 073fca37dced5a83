use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower::Service;

use super::batch_call::{BatchCall, Requests};
use super::flight::{Flight, Part, Seat};
use super::future::{Group, Voice};
use super::{Batch, BatchLayer, Share};
use crate::clock;
use crate::error::{Reason, Rejected};

/// A caller and those of the same batch.
pub struct SameBatch<S: Service<B::Merged, Response = B::Answer>, B: Batch, X> {
    pub(super) open: Open<S, B>,
    pub(super) inner: S,
    pub(super) layer: Arc<BatchLayer<B, X>>,
    /// Its shard, and those of its batch, once it has joined one.
    pub(super) joined: Option<(u64, Requests<B::Request>)>,
}

/// Of each shard the batch that was begun last. Locked before its requests, and they before its flight.
pub(super) struct Open<S: Service<B::Merged, Response = B::Answer>, B: Batch>(
    Arc<Mutex<HashMap<u64, Gathering<S, B>>>>,
);

pub(super) struct Gathering<S: Service<B::Merged, Response = B::Answer>, B: Batch> {
    flight: Arc<Flight<BatchCall<S, B>>>,
    requests: Requests<B::Request>,
}

impl<S: Service<B::Merged, Response = B::Answer>, B: Batch> Open<S, B> {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Gathering<S, B>>> {
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
        let shard = self.layer.batch.shard(&request);
        let mut open = self.open.lock();
        let size = self.layer.size;
        let requests = match open.get(&shard) {
            Some(Gathering { flight, requests }) => {
                let mut gathered = requests.lock();
                let seat = (!gathered.closed).then(|| flight.join()).flatten();
                if let Some(seat) = seat {
                    let waker = gathered.add(seat.number(), request, size);
                    drop(gathered);
                    self.joined = Some((shard, requests.clone()));
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
        let seat = Flight::new().begin(BatchCall::new(
            Arc::clone(&self.layer.batch),
            requests.clone(),
            self.inner.clone(),
            clock::after(clock::now(), self.layer.window),
        ));
        requests.lock().add(seat.number(), request, size);
        self.joined = Some((shard, requests.clone()));
        let flight = Arc::clone(seat.flight());
        let before = open.insert(shard, Gathering { flight, requests });
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
        let Some((shard, requests)) = &self.joined else {
            return;
        };
        let request = requests.lock().by_seat.remove(&seat.number());
        drop(request);
        let flight = Arc::clone(seat.flight());
        drop(seat);
        if flight.is_under_way() {
            return;
        }
        let mut open = self.open.lock();
        let last = open.get(shard);
        if last.is_some_and(|last| Arc::ptr_eq(&last.flight, &flight)) {
            let ended = open.remove(shard);
            drop(open);
            drop(ended);
        }
    }

    fn voice(&self) -> &Voice {
        &self.layer.voice
    }
}
