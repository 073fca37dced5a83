use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use super::flight::Flight;
use super::member::Standing;
use super::picker::{Endpoint, Picker};
use super::{InstanceView, NewEndpoint, Tried};
use crate::algo::ejection::Settings;
use crate::classify::Outcome;
use crate::clock;
use crate::discovery::{Instance, Watch};
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
        let endpoints = &picker.endpoints;
        let now = self.now();
        loop {
            let load = |index: usize| endpoints[index].load(now);
            let open = |index: usize| endpoints[index].member.standing(now) != Standing::Out;
            let untried = |index: usize| {
                open(index) && tried.is_none_or(|tried| !tried.contains(endpoints[index].member.id))
            };
            let choices = &picker.choices;
            let rng = &mut ThreadRng;
            let index = choices
                .pick(rng, load, untried)
                .or_else(|| picker.pick_held(load, untried))
                .or_else(|| choices.pick(rng, load, open))
                .or_else(|| choices.pick(rng, load, |_| true))?;

            let member = &endpoints[index].member;
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
        if picker.version >= self.watch.version() {
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

#[cfg(test)]
mod tests {
    use super::super::member::Member;
    use super::super::picker::Rank;
    use super::*;
    use crate::discovery::{Snapshot, Status};

    type New = fn(&Arc<Instance>) -> Arc<Instance>;

    const NEW: New = Arc::clone;
    const SECOND: Duration = Duration::from_secs(1);

    fn instance(id: &str) -> Instance {
        Instance::new(id, "10.0.0.1", 80)
    }

    fn fleet(ids: &[&str]) -> Arc<Fleet<Arc<Instance>>> {
        let watch = Watch::fixed("orders", ids.iter().map(|id| instance(id)));
        let fleet = Fleet::new(watch, Settings::default(), Observer::default());
        fleet.picker(&NEW);
        Arc::new(fleet)
    }

    /// The registry names these instances now.
    fn change(fleet: &Fleet<Arc<Instance>>, instances: impl IntoIterator<Item = Instance>) {
        let snapshot = Snapshot::fixed("orders", instances);
        let picker = fleet.picker.load().next(&snapshot, &NEW, fleet.now());
        picker.lift_surplus(&fleet.ejection, fleet.now());
        fleet.picker.store(Arc::new(picker));
    }

    fn member(fleet: &Fleet<Arc<Instance>>, id: &str) -> Arc<Member<Arc<Instance>>> {
        let picker = fleet.picker.load();
        let mut endpoints = picker.endpoints.iter();
        let found = endpoints.find(|endpoint| endpoint.instance.id == id);
        found.expect("known").member.clone()
    }

    /// Five calls to `id` fail.
    fn fail(fleet: &Arc<Fleet<Arc<Instance>>>, id: &str) {
        for _ in 0..5 {
            Flight::begin(fleet, &member(fleet, id), fleet.now(), false).finish(Outcome::Failure);
        }
    }

    fn ejected(fleet: &Fleet<Arc<Instance>>) -> usize {
        let picker = fleet.picker.load();
        let candidates = picker.candidates().iter();
        candidates.filter(|one| one.member.is_ejected()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_weight_and_metadata_keeps_what_is_known() {
        let fleet = fleet(&["a", "b"]);
        let before = member(&fleet, "b");
        fail(&fleet, "b");
        change(
            &fleet,
            [
                instance("a"),
                instance("b").weight(7).metadata("v", "2").zone("z"),
            ],
        );
        let after = member(&fleet, "b");
        assert!(Arc::ptr_eq(&before, &after), "its service is kept as well");
        assert!(after.is_ejected());
        assert!(after.cost(fleet.now()) > 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_port_is_another_instance() {
        let fleet = fleet(&["a", "b"]);
        fail(&fleet, "b");
        change(&fleet, [instance("a"), Instance::new("b", "10.0.0.1", 81)]);
        assert!(!member(&fleet, "b").is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn the_departed_do_not_count_among_those_that_may_be_ejected() {
        let fleet = fleet(&["a", "b", "c", "d"]);
        fail(&fleet, "a");
        fail(&fleet, "b");
        assert_eq!(ejected(&fleet), 2);
        // The ejected ones leave: of the two others one may be ejected, not two.
        change(&fleet, [instance("c"), instance("d")]);
        fail(&fleet, "c");
        fail(&fleet, "d");
        assert_eq!(ejected(&fleet), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_healthy_depart_those_ejected_first_come_back() {
        let fleet = fleet(&["a", "b", "c", "d", "e", "f"]);
        for id in ["a", "b", "c"] {
            fail(&fleet, id);
            tokio::time::advance(3 * SECOND).await;
        }
        assert_eq!(ejected(&fleet), 3);
        change(&fleet, ["a", "b", "c", "d"].map(instance));
        assert_eq!(ejected(&fleet), 2);
        assert!(!member(&fleet, "a").is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn the_outcome_of_a_departed_instance_changes_nothing() {
        let fleet = fleet(&["a", "b", "c", "d"]);
        let gone = member(&fleet, "d");
        change(&fleet, ["a", "b", "c"].map(instance));
        for _ in 0..10 {
            Flight::begin(&fleet, &gone, fleet.now(), false).finish(Outcome::Failure);
        }
        assert!(!gone.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_a_row_of_failures() {
        let fleet = fleet(&["a", "b"]);
        let b = member(&fleet, "b");
        for _ in 0..9 {
            for outcome in [Outcome::Failure; 4].into_iter().chain([Outcome::Success]) {
                Flight::begin(&fleet, &b, fleet.now(), false).finish(outcome);
                assert!(!b.is_ejected());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_before_an_ejection_are_no_news_after_the_return() {
        let fleet = fleet(&["a", "b"]);
        let b = member(&fleet, "b");
        let early = [(); 9].map(|()| Flight::begin(&fleet, &b, fleet.now(), false));
        fail(&fleet, "b");
        tokio::time::advance(11 * SECOND).await;
        assert!(b.claim_probe(fleet.now()));
        Flight::begin(&fleet, &b, fleet.now(), true).finish(Outcome::Success);
        let cost = b.cost(fleet.now());
        for flight in early {
            flight.finish(Outcome::Failure);
        }
        assert!(!b.is_ejected());
        assert_eq!((b.cost(fleet.now()), b.in_flight()), (cost, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_instance_is_expected_to_be_as_fast_as_the_others() {
        let fleet = fleet(&["a", "b", "c"]);
        for (id, seconds) in [("a", 1), ("b", 2), ("c", 9)] {
            let member = member(&fleet, id);
            member.bring_back(seconds * SECOND, fleet.now());
        }
        change(&fleet, ["a", "b", "c", "d"].map(instance));
        assert_eq!(member(&fleet, "d").cost(fleet.now()), 2.0);
    }

    #[test]
    fn ranks_put_the_live_before_the_held_and_the_rest_last() {
        let order = [
            Rank::of(&instance("a"), false),
            Rank::of(&instance("a"), true),
            Rank::of(&instance("a").weight(0), false),
            Rank::of(&instance("a").status(Status::Down), false),
        ];
        assert!(order.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_says_nothing_makes_room_at_once() {
        let fleet = fleet(&["a", "b"]);
        fail(&fleet, "b");
        let b = member(&fleet, "b");
        tokio::time::advance(11 * SECOND).await;
        assert!(b.claim_probe(fleet.now()));
        assert!(!b.claim_probe(fleet.now()));
        Flight::begin(&fleet, &b, fleet.now(), true).finish(Outcome::Ignored);
        assert!(b.claim_probe(fleet.now()));
    }
}
