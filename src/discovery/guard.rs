use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::instance::{Instance, Status};

/// Doubts a registry that forgets many instances at once. Pure: it takes `now` and says when to ask again.
///
/// A fall to zero, or by more than half with at least three gone, is not believed until it is confirmed: the lost
/// instances are held, behind the rest. Losses add up for as long as they are recent, so that leases which run out one
/// after another are a fall as well. An instance that is named as out of service or starting is no loss but a statement,
/// and taken at once; one that is named as down is a loss, as in a registry that lists only the healthy.
///
/// The idea is that of Finagle's `StabilizingAddr` and of Nacos' protection against an empty push.
#[derive(Debug, Default)]
pub(super) struct Guard {
    live: Vec<Arc<Instance>>,
    lost: Vec<Lost>,
    /// How many there were before the recent losses.
    before: usize,
    paused_at: Option<Instant>,
}

/// An instance that the registry no longer names, until that is certain.
#[derive(Debug)]
struct Lost {
    instance: Arc<Instance>,
    since: Instant,
    confirmations: u32,
    held: bool,
}

impl Guard {
    /// Takes what was known before the first answer.
    pub(super) fn recall(&mut self, instances: &[Arc<Instance>]) {
        self.live = instances.to_vec();
        self.live.sort_by(|a, b| a.id.cmp(&b.id));
        self.live.dedup_by(|a, b| a.id == b.id);
        self.before = self.live.len();
    }

    /// Takes an answer: all the instances that the registry names.
    pub(super) fn answer(&mut self, instances: Vec<Instance>, authoritative: bool, now: Instant) {
        self.resume(now);
        let named: HashMap<&str, Status> = instances
            .iter()
            .map(|instance| (instance.id.as_str(), instance.status))
            .collect();
        let is_lost = |id: &str| matches!(named.get(id), None | Some(Status::Down));

        self.lost.retain(|lost| is_lost(&lost.instance.id));
        for lost in &mut self.lost {
            lost.confirmations += 1;
        }
        let known = std::mem::take(&mut self.live);
        let newly_lost = known.into_iter().filter(|known| is_lost(&known.id));
        self.lost.extend(newly_lost.map(|instance| Lost {
            instance,
            since: now,
            confirmations: 0,
            held: false,
        }));
        if authoritative {
            self.lost.clear();
        }
        self.live = callable(instances);
        self.release(now);
        self.judge();
    }

    /// Takes a confirmation of the last answer.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.resume(now);
        for lost in &mut self.lost {
            lost.confirmations += 1;
        }
        self.release(now);
    }

    /// Stops the clock while the registry does not answer: an outage confirms nothing.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_at.get_or_insert(now);
    }

    /// Lets go of the instances whose loss is certain.
    pub(super) fn release(&mut self, now: Instant) {
        if self.paused_at.is_none() {
            self.lost.retain(|lost| !lost.is_certain(now));
        }
    }

    /// When to call [`release`](Self::release), if nothing is heard before.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.paused_at.is_some() {
            return None;
        }
        let held = self.lost.iter().filter(|lost| lost.held);
        held.map(|lost| lost.since + LONGEST).min()
    }

    /// The instances that the registry names and that may be called, by id.
    pub(super) fn live(&self) -> &[Arc<Instance>] {
        &self.live
    }

    /// The instances whose loss is doubted.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let held = self.lost.iter().filter(|lost| lost.held);
        held.map(|lost| &lost.instance)
    }

    /// Whether there is nothing to call.
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.held().next().is_none()
    }

    fn resume(&mut self, now: Instant) {
        if let Some(paused_at) = self.paused_at.take() {
            let pause = now.saturating_duration_since(paused_at);
            for lost in &mut self.lost {
                lost.since += pause;
            }
        }
    }

    fn judge(&mut self) {
        let live = self.live.len();
        // Those that came in the meantime make up for those that went; losses that are certain are past.
        self.before = self.before.min(live + self.lost.len()).max(live);
        let fall = self.before - live;
        if live == 0 || (fall >= FEWEST && fall * 2 > self.before) {
            for lost in &mut self.lost {
                lost.held = true;
            }
        }
    }
}

impl Lost {
    fn is_certain(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        age >= LONGEST || (age >= SHORTEST && self.confirmations >= CONFIRMATIONS)
    }
}

/// Those of `instances` that are up, by id, each id once.
fn callable(instances: Vec<Instance>) -> Vec<Arc<Instance>> {
    let up = instances
        .into_iter()
        .filter(|instance| instance.status == Status::Up);
    let mut up: Vec<_> = up.map(Arc::new).collect();
    up.sort_by(|a, b| a.id.cmp(&b.id));
    up.dedup_by(|a, b| a.id == b.id);
    up.shrink_to_fit();
    up
}

/// Fewer may go at once without a doubt: small services lose a third or a half in any deployment.
const FEWEST: usize = 3;
/// How often a loss has to be confirmed: one more empty answer may come from the same half-started server.
const CONFIRMATIONS: u32 = 2;
/// How long the confirmations have to span: a restarted registry hears most heartbeats again in this time.
const SHORTEST: Duration = Duration::from_secs(30);
/// After this a loss is believed without confirmations, so that a service that was shut down goes away.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn instances(ids: impl IntoIterator<Item = u32>) -> Vec<Instance> {
        ids.into_iter()
            .map(|id| Instance::new(id.to_string(), "h", 80))
            .collect()
    }

    fn guard_of(count: u32, now: Instant) -> Guard {
        let mut guard = Guard::default();
        guard.answer(instances(0..count), false, now);
        guard
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn start() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn a_fall_is_held_when_it_is_to_zero_or_by_more_than_half_with_three_gone() {
        // (before, after, held)
        let table = [
            (1, 0, 1),
            (2, 0, 2),
            (2, 1, 0),
            (3, 1, 0),
            (4, 1, 3),
            (4, 2, 0),
            (5, 2, 3),
            (6, 3, 0),
            (6, 2, 4),
            (100, 50, 0),
            (100, 49, 51),
        ];
        for (before, after, held) in table {
            let now = start();
            let mut guard = guard_of(before, now);
            guard.answer(instances(0..after), false, now);
            assert_eq!(guard.live().len(), after as usize, "{before} -> {after}");
            assert_eq!(guard.held().count(), held, "{before} -> {after}");
        }
    }

    #[test]
    fn a_fall_is_believed_after_two_confirmations_that_span_thirty_seconds() {
        // Confirmations at these seconds; gone after the last one.
        let table: [(&[u64], bool); 5] = [
            (&[30], false),
            (&[1, 2, 29], false),
            (&[1, 30], true),
            (&[10, 20, 30], true),
            (&[60], true),
        ];
        for (confirmations, gone) in table {
            let now = start();
            let mut guard = guard_of(5, now);
            guard.answer(Vec::new(), false, now);
            for &at in confirmations {
                guard.confirm(now + secs(at));
            }
            assert_eq!(guard.held().count() == 0, gone, "{confirmations:?}");
        }
    }

    #[test]
    fn an_equal_answer_confirms_as_well() {
        let now = start();
        let mut guard = guard_of(5, now);
        for at in [0, 10, 30] {
            assert_eq!(guard.live().len() + guard.held().count(), 5);
            guard.answer(instances(0..1), false, now + secs(at));
        }
        assert_eq!(guard.held().count(), 0);
    }

    #[test]
    fn a_true_fall_to_zero_wins_after_sixty_seconds() {
        let now = start();
        let mut guard = guard_of(5, now);
        guard.answer(Vec::new(), false, now);
        assert_eq!(guard.due(), Some(now + secs(60)));
        guard.release(now + secs(60));
        assert!(guard.is_empty());
        assert_eq!(guard.due(), None);
    }

    #[test]
    fn an_outage_confirms_nothing() {
        let now = start();
        let mut guard = guard_of(5, now);
        guard.answer(Vec::new(), false, now);
        guard.pause(now + secs(10));
        guard.release(now + secs(300));
        assert_eq!(guard.due(), None);
        guard.confirm(now + secs(300));
        assert_eq!(guard.held().count(), 5);
        assert_eq!(guard.due(), Some(now + secs(350)));
    }

    #[test]
    fn instances_lost_one_after_another_are_a_fall_too() {
        let now = start();
        let mut guard = guard_of(10, now);
        for left in (0..10).rev() {
            guard.answer(instances(0..left), false, now + secs(10 - u64::from(left)));
            assert!(guard.live().len() + guard.held().count() >= 5);
        }
        assert_eq!(guard.held().count(), 10);
    }

    #[test]
    fn a_rolling_replacement_is_no_fall() {
        let now = start();
        let mut guard = guard_of(10, now);
        guard.answer(instances(100..108), false, now);
        assert_eq!((guard.live().len(), guard.held().count()), (8, 0));
    }

    #[test]
    fn held_instances_that_return_are_live_and_the_rest_stay_held() {
        let now = start();
        let mut guard = guard_of(10, now);
        guard.answer(Vec::new(), false, now);
        guard.answer(instances(0..7), false, now + secs(1));
        assert_eq!((guard.live().len(), guard.held().count()), (7, 3));
    }

    #[test]
    fn an_instance_that_moved_is_not_held_at_its_old_address() {
        let now = start();
        let mut guard = guard_of(1, now);
        guard.answer(vec![Instance::new("0", "elsewhere", 80)], false, now);
        assert_eq!((guard.live().len(), guard.held().count()), (1, 0));
    }

    #[test]
    fn out_of_service_is_taken_at_once_and_down_is_doubted() {
        let table = [
            (Status::OutOfService, 0),
            (Status::Starting, 0),
            (Status::Down, 4),
        ];
        for (status, held) in table {
            let now = start();
            let mut guard = guard_of(4, now);
            let named = instances(0..4).into_iter().map(|i| i.status(status));
            guard.answer(named.collect(), false, now);
            assert_eq!(
                (guard.live().len(), guard.held().count()),
                (0, held),
                "{status:?}"
            );
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Answer(BTreeSet<u32>, bool),
        Confirm,
        Pause,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let answer = (
            proptest::collection::btree_set(0..12_u32, 0..12),
            proptest::bool::weighted(0.1),
        )
            .prop_map(|(ids, authoritative)| Step::Answer(ids, authoritative));
        let step = prop_oneof![6 => answer, 3 => Just(Step::Confirm), 1 => Just(Step::Pause)];
        proptest::collection::vec((0..40_u64, step), 1..40)
    }

    proptest! {
        #[test]
        fn what_is_named_is_live_and_what_is_served_is_never_lost_in_silence(steps in steps()) {
            let mut now = start();
            let mut guard = Guard::default();
            let mut named = BTreeSet::new();
            // When each id was last named, in the time during which the registry answers.
            let mut answering = Duration::ZERO;
            let mut last_named = HashMap::new();
            let mut paused = false;
            for (wait, step) in steps {
                let served = !guard.is_empty();
                now += secs(wait);
                if !paused {
                    answering += secs(wait);
                }
                guard.release(now);
                match step {
                    Step::Answer(ids, authoritative) => {
                        paused = false;
                        guard.answer(instances(ids.iter().copied()), authoritative, now);
                        if authoritative {
                            prop_assert_eq!(guard.held().count(), 0);
                        } else if served && !named.is_empty() {
                            prop_assert!(!guard.is_empty(), "emptied at once");
                        }
                        named = ids;
                    }
                    Step::Confirm => {
                        paused = false;
                        guard.confirm(now);
                    }
                    Step::Pause => {
                        paused = true;
                        guard.pause(now);
                    }
                }
                for &id in &named {
                    last_named.insert(id.to_string(), answering);
                }
                let live: BTreeSet<u32> =
                    guard.live().iter().map(|i| i.id.parse().unwrap()).collect();
                prop_assert_eq!(&live, &named);
                for held in guard.held() {
                    prop_assert!(!named.contains(&held.id.parse().unwrap()));
                    prop_assert!(answering - last_named[&held.id] < secs(60) + secs(40));
                }
            }
        }
    }
}
