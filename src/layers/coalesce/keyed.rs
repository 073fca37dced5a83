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
pub(super) struct Flights<S: Service<Req>, Req, K>(Arc<Mutex<State<S, Req, K>>>);

pub(super) struct State<S: Service<Req>, Req, K> {
    pub(super) by_key: HashMap<K, Shared<S, Req>>,
    /// In which nobody has a seat, for the calls to come: they allocate nothing.
    idle: Vec<Shared<S, Req>>,
}

type Shared<S, Req> = Arc<Flight<Oneshot<S, Req>>>;

impl<S: Service<Req>, Req, K> Flights<S, Req, K> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<S, Req, K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service<Req>, Req, K> Default for Flights<S, Req, K> {
    /// With room for one call at a time.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            by_key: HashMap::with_capacity(1),
            idle: vec![Flight::new()],
        })))
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
        if let Some(seat) = flights.by_key.get(&self.key).and_then(Flight::join) {
            return seat;
        }
        let flight = flights.idle.pop().unwrap_or_else(Flight::new);
        let seat = flight.begin(Oneshot::new(self.inner.clone(), request));
        let flight = Arc::clone(seat.flight());
        let ended = flights.by_key.insert(self.key.clone(), flight);
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
        let mut flight = Arc::clone(seat.flight());
        drop(seat);
        if flight.is_under_way() {
            return;
        }
        let mut flights = self.flights.lock();
        let known = flights.by_key.get(&self.key);
        let ended = match known.is_some_and(|known| Arc::ptr_eq(known, &flight)) {
            true => flights.by_key.remove_entry(&self.key),
            false => None,
        };
        let key = ended.map(|(key, _)| key);
        if Arc::get_mut(&mut flight).is_some() && flights.idle.len() < MOST_IDLE {
            flights.idle.push(flight);
        }
        drop(flights);
        // Foreign, as is its drop.
        drop(key);
    }

    fn voice(&self) -> &Voice {
        &self.layer.voice
    }
}

/// So many calls may be under way at once, but seldom are: what is above is freed.
const MOST_IDLE: usize = 1024;
