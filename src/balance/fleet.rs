use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use super::flight::Flight;
use super::member::{Member, Standing};
use super::{InstanceView, NewEndpoint, Tried};
use crate::algo::ejection::Settings;
use crate::algo::pick::Choices;
use crate::classify::Outcome;
use crate::clock;
use crate::discovery::{Instance, InstanceKey, Snapshot, Status, Watch};
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;

/// The instances of a service and what is known of each.
#[derive(Debug)]
pub(super) struct Fleet<S> {
    pub(super) watch: Watch,
    pub(super) ejection: Settings,
    pub(super) observer: Observer,
    epoch: Instant,
    picker: ArcSwap<Picker<S>>,
    /// Held while the picker is replaced, or an instance is ejected or brought back.
    changes: Mutex<()>,
}

/// What a pick looks at. Immutable; another replaces it when the instances change.
#[derive(Debug)]
struct Picker<S> {
    version: u64,
    /// Those of the best rank first.
    endpoints: Box<[Endpoint<S>]>,
    /// Draws among the endpoints of the best rank.
    choices: Choices,
    /// How many are of the best rank.
    candidates: usize,
}

#[derive(Debug)]
struct Endpoint<S> {
    instance: Arc<Instance>,
    held: bool,
    rank: Rank,
    /// The weight relative to the mean.
    share: f64,
    member: Arc<Member<S>>,
}

/// Those of a lower rank are called only if there is nobody of a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Live,
    /// No longer in the registry, but not confirmed lost.
    Held,
    Weightless,
    NotUp,
}

impl<S> Fleet<S> {
    pub(super) fn new(watch: Watch, ejection: Settings, observer: Observer) -> Self {
        Self {
            watch,
            ejection,
            observer,
            epoch: clock::now(),
            picker: ArcSwap::from_pointee(Picker::empty()),
            changes: Mutex::default(),
        }
    }

    /// Begins a call to the best of the instances; `None` only if there is none.
    pub(super) fn pick<N>(
        self: &Arc<Self>,
        new: &N,
        tried: Option<&Arc<Tried>>,
    ) -> Option<Flight<S>>
    where
        N: NewEndpoint<Service = S>,
    {
        let picker = self.picker(new);
        let candidates = picker.candidates();
        let now = self.now();
        loop {
            let load = |index: usize| candidates[index].load(now);
            let open = |index: usize| candidates[index].member.standing(now) != Standing::Out;
            let untried = |index: usize| {
                open(index)
                    && tried.is_none_or(|tried| !tried.contains(candidates[index].member.id))
            };
            let choices = &picker.choices;
            let rng = &mut ThreadRng;
            let index = choices
                .pick(rng, load, untried)
                .or_else(|| choices.pick(rng, load, open))
                .or_else(|| choices.pick(rng, load, |_| true))?;

            let member = &candidates[index].member;
            let is_probe = member.standing(now) == Standing::Due;
            if is_probe && !member.claim_probe(now) {
                // Another call was faster; now it is out, so this ends.
                continue;
            }
            if let Some(tried) = tried {
                tried.insert(member.id);
            }
            return Some(Flight::begin(self, member, now, is_probe));
        }
    }

    pub(super) fn views<N>(&self, new: &N) -> Vec<InstanceView>
    where
        N: NewEndpoint<Service = S>,
    {
        let now = self.now();
        let view = |endpoint: &Endpoint<S>| InstanceView {
            instance: endpoint.instance.clone(),
            held: endpoint.held,
            latency: Duration::from_secs_f64(endpoint.member.cost(now)),
            in_flight: endpoint.member.in_flight(),
            ejected_until: endpoint
                .member
                .ejected_until()
                .map(|until| self.epoch + until),
        };
        self.picker(new).endpoints.iter().map(view).collect()
    }

    /// Takes in how a call ended; `None` if it was cancelled.
    pub(super) fn record(&self, flight: &Flight<S>, outcome: Option<Outcome>) {
        let member = &*flight.member;
        if member.generation() != flight.generation {
            return;
        }
        let now = self.now();
        let elapsed = now.saturating_sub(flight.started);
        match outcome {
            None => member.cancelled(elapsed, now),
            Some(Outcome::Ignored) if flight.is_probe => member.release_probe(now),
            Some(Outcome::Ignored) => {}
            Some(Outcome::Success) if member.is_ejected() => self.bring_back(flight, elapsed, now),
            Some(Outcome::Success) => member.succeeded(elapsed, now),
            Some(_) if flight.is_probe => self.prolong(flight, now),
            // Called although ejected, since nobody else was left: no news.
            Some(_) if member.is_ejected() => {}
            Some(_) => {
                if self.ejection.is_due(member.failed(elapsed, now)) {
                    self.eject(flight, now);
                }
            }
        }
    }

    fn eject(&self, flight: &Flight<S>, now: Duration) {
        let member = &flight.member;
        self.change(flight, |endpoint, picker| {
            let candidates = picker.candidates();
            let ejected = candidates.iter().filter(|other| other.member.is_ejected());
            let wait = member.eject(&self.ejection, ejected.count(), candidates.len(), now)?;
            Some((endpoint.instance.clone(), Some(wait)))
        });
    }

    fn prolong(&self, flight: &Flight<S>, now: Duration) {
        self.change(flight, |endpoint, _| {
            let wait = flight.member.prolong(&self.ejection, now);
            Some((endpoint.instance.clone(), Some(wait)))
        });
    }

    fn bring_back(&self, flight: &Flight<S>, elapsed: Duration, now: Duration) {
        self.change(flight, |endpoint, _| {
            flight.member.bring_back(elapsed, now);
            Some((endpoint.instance.clone(), None))
        });
    }

    /// Changes the ejection of the flight's instance, unless another call was faster or the instance is no longer
    /// called, and tells of it: for how long it is out, or that it is back.
    fn change(
        &self,
        flight: &Flight<S>,
        change: impl FnOnce(&Endpoint<S>, &Picker<S>) -> Option<(Arc<Instance>, Option<Duration>)>,
    ) {
        let changed = {
            let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            if flight.member.generation() != flight.generation {
                return;
            }
            let picker = self.picker.load();
            let mut candidates = picker.candidates().iter();
            candidates
                .find(|endpoint| Arc::ptr_eq(&endpoint.member, &flight.member))
                .and_then(|endpoint| change(endpoint, &picker))
        };
        if let Some((instance, wait)) = changed {
            self.tell(&instance, wait);
        }
    }

    fn tell(&self, instance: &Instance, wait: Option<Duration>) {
        let snapshot = self.watch.snapshot();
        let service = snapshot.service();
        let instance = &instance.id;
        self.observer.emit(&match wait {
            Some(wait) => Event::Ejected {
                service,
                instance,
                wait,
            },
            None => Event::Returned { service, instance },
        });
    }

    /// The picker of the latest snapshot. One caller replaces it; the others go on with the old one, unless that is
    /// empty.
    fn picker<N>(&self, new: &N) -> Guard<Arc<Picker<S>>>
    where
        N: NewEndpoint<Service = S>,
    {
        let picker = self.picker.load();
        if picker.version >= self.watch.snapshot().version() {
            return picker;
        }
        let changes = match self.changes.try_lock() {
            Ok(changes) => changes,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if !picker.endpoints.is_empty() => return picker,
            Err(TryLockError::WouldBlock) => {
                self.changes.lock().unwrap_or_else(PoisonError::into_inner)
            }
        };
        let old = self.picker.load();
        let snapshot = self.watch.snapshot();
        if old.version >= snapshot.version() {
            return old;
        }
        let now = self.now();
        let picker = old.next(&snapshot, new, now);
        let returned = picker.lift_surplus(&self.ejection, now);
        self.picker.store(Arc::new(picker));
        drop(changes);
        for instance in returned {
            self.tell(&instance, None);
        }
        self.picker.load()
    }

    fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.epoch)
    }
}

impl<S> Picker<S> {
    fn empty() -> Self {
        Self {
            version: 0,
            endpoints: Box::default(),
            choices: Choices::new(&[]),
            candidates: 0,
        }
    }

    /// The picker for `snapshot`. Who was known before stays who he was.
    fn next<N>(&self, snapshot: &Snapshot, new: &N, now: Duration) -> Self
    where
        N: NewEndpoint<Service = S>,
    {
        let mut known: HashMap<InstanceKey, Arc<Member<S>>> = self
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.instance.key(), endpoint.member.clone()))
            .collect();
        let expected = self.median_cost(now);
        let live = snapshot.live().len();
        let mut endpoints: Vec<_> = (snapshot.instances().iter().enumerate())
            .map(|(index, instance)| Endpoint {
                instance: instance.clone(),
                held: index >= live,
                rank: Rank::of(instance, index >= live),
                share: 1.0,
                member: known
                    .entry(instance.key())
                    .or_insert_with(|| {
                        Arc::new(Member::new(new.new_endpoint(instance), expected, now))
                    })
                    .clone(),
            })
            .collect();
        // Stable: within a rank the registry's order stays.
        endpoints.sort_by_key(|endpoint| endpoint.rank);

        let best = endpoints.first().map(|endpoint| endpoint.rank);
        let candidates = endpoints.partition_point(|endpoint| Some(endpoint.rank) == best);
        let weights: Vec<u32> = endpoints[..candidates]
            .iter()
            .map(|endpoint| endpoint.instance.weight)
            .collect();
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        if sum > 0.0 {
            for (endpoint, &weight) in endpoints.iter_mut().zip(&weights) {
                endpoint.share = f64::from(weight) * candidates as f64 / sum;
            }
        }
        Self {
            version: snapshot.version(),
            endpoints: endpoints.into(),
            choices: Choices::new(&weights),
            candidates,
        }
    }

    /// Those that a pick chooses from.
    fn candidates(&self) -> &[Endpoint<S>] {
        &self.endpoints[..self.candidates]
    }

    /// What a new instance is expected to cost: as much as half of the others do, so that it is tried soon but not
    /// flooded.
    fn median_cost(&self, now: Duration) -> Duration {
        let working = self.candidates().iter();
        let mut costs: Vec<f64> = working
            .filter(|endpoint| !endpoint.member.is_ejected())
            .map(|endpoint| endpoint.member.cost(now))
            .collect();
        if costs.is_empty() {
            return FIRST_COST;
        }
        let middle = costs.len() / 2;
        let (_, median, _) = costs.select_nth_unstable_by(middle, f64::total_cmp);
        Duration::from_secs_f64(*median)
    }

    /// Brings back those whose ejection would end first, where so many others departed that the share of the ejected
    /// is too high; returns them.
    fn lift_surplus(&self, settings: &Settings, now: Duration) -> Vec<Arc<Instance>> {
        let mut ejected: Vec<_> = self
            .candidates()
            .iter()
            .filter(|endpoint| endpoint.member.is_ejected())
            .collect();
        let most = settings.most(self.candidates);
        ejected.sort_by_key(|endpoint| endpoint.member.ejected_until());
        ejected.truncate(ejected.len().saturating_sub(most));
        for endpoint in &ejected {
            let cost = Duration::from_secs_f64(endpoint.member.cost(now));
            endpoint.member.bring_back(cost, now);
        }
        ejected
            .into_iter()
            .map(|endpoint| endpoint.instance.clone())
            .collect()
    }
}

impl<S> Endpoint<S> {
    /// What a further call is expected to cost. For equal weights it is latency × (in-flight + 1). With others what is
    /// under way counts by weight, and an idle instance as much as any: those are drawn by weight already.
    fn load(&self, now: Duration) -> f64 {
        if self.member.is_ejected() {
            // Drawn at all, it is due for its probe.
            return 0.0;
        }
        let in_flight = self.member.in_flight() as f64;
        self.member.cost(now) * (in_flight / self.share + 1.0)
    }
}

impl Rank {
    fn of(instance: &Instance, held: bool) -> Self {
        if instance.status != Status::Up {
            Self::NotUp
        } else if instance.weight == 0 {
            Self::Weightless
        } else if held {
            Self::Held
        } else {
            Self::Live
        }
    }
}

/// linkerd's guess for an instance that nothing is known of.
const FIRST_COST: Duration = Duration::from_millis(30);
