use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower::Service;
use tower::util::Oneshot;

use super::flight::{Flight, Part, Seat};
use super::future::{Group, Voice};
use super::{CoalesceLayer, Share};
use crate::error::{Reason, Rejected};

/// The calls under way, by key. Clones share them.
pub(super) struct Flights<S: Service<Req>, Req, K>(Arc<Mutex<ByKey<S, Req, K>>>);

type ByKey<S, Req, K> = HashMap<K, Arc<Flight<Oneshot<S, Req>>>>;

impl<S: Service<Req>, Req, K> Flights<S, Req, K> {
    pub(super) fn lock(&self) -> MutexGuard<'_, ByKey<S, Req, K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service<Req>, Req, K> Default for Flights<S, Req, K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Service<Req>, Req, K> Clone for Flights<S, Req, K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A caller and those who ask for the same key.
pub struct SameKey<S: Service<Req>, Req, K, F, X> {
    pub(super) flights: Flights<S, Req, K>,
    pub(super) key: K,
    pub(super) inner: S,
    pub(super) layer: Arc<CoalesceLayer<Req, K, F, X>>,
}

impl<S, Req, K, F, X> Group for SameKey<S, Req, K, F, X>
where
    S: Service<Req, Response: Clone, Error: From<Rejected>> + Clone,
    K: Hash + Eq + Clone,
    X: Share<S::Error>,
{
    type Request = Req;
    type Call = Oneshot<S, Req>;
    type Response = S::Response;
    type Error = S::Error;

    fn join(&mut self, request: Req) -> Seat<Self::Call> {
        let mut flights = self.flights.lock();
        if let Some(seat) = flights.get(&self.key).and_then(Flight::join) {
            return seat;
        }
        let seat = Flight::begin(Oneshot::new(self.inner.clone(), request));
        let ended = flights.insert(self.key.clone(), Arc::clone(seat.flight()));
        drop(flights);
        drop(ended);
        seat
    }

    fn part(
        &self,
        _: u64,
        output: Part<'_, Result<S::Response, S::Error>>,
    ) -> Result<Result<S::Response, S::Error>, Reason> {
        Ok(match output {
            Part::Last(result) => result,
            Part::Another(Ok(response)) => Ok(response.clone()),
            Part::Another(Err(error)) => Err(self.layer.share.share(error)),
        })
    }

    fn leave(&self, seat: Seat<Self::Call>) {
        let flight = Arc::clone(seat.flight());
        drop(seat);
        if flight.is_under_way() {
            return;
        }
        let mut flights = self.flights.lock();
        let known = flights.get(&self.key);
        if known.is_some_and(|known| Arc::ptr_eq(known, &flight)) {
            let ended = flights.remove_entry(&self.key);
            drop(flights);
            drop(ended);
        }
    }

    fn voice(&self) -> &Voice {
        &self.layer.voice
    }
}
