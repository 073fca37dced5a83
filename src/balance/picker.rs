use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::NewEndpoint;
use super::member::Member;
use crate::algo::ejection::Settings;
use crate::algo::pick::Choices;
use crate::discovery::{Instance, InstanceKey, Snapshot, Status};

/// What a pick looks at. Immutable; another replaces it when the instances change.
#[derive(Debug)]
pub(super) struct Picker<S> {
    pub(super) version: u64,
    /// Those of the best rank first.
    pub(super) endpoints: Box<[Endpoint<S>]>,
    /// Draws among the endpoints of the best rank.
    pub(super) choices: Choices,
    /// How many are of the best rank.
    candidates: usize,
}

#[derive(Debug)]
pub(super) struct Endpoint<S> {
    pub(super) instance: Arc<Instance>,
    pub(super) held: bool,
    rank: Rank,
    /// The weight relative to the mean.
    share: f64,
    pub(super) member: Arc<Member<S>>,
}

/// Those of a lower rank are called only if there is nobody of a higher one; held ones also if a call has tried all the
/// live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Live,
    /// No longer in the registry, but not confirmed lost, and beside at least as many that are live.
    Held,
    Weightless,
    NotUp,
}

impl<S> Picker<S> {
    pub(super) fn empty() -> Self {
        Self {
            version: 0,
            endpoints: Box::default(),
            choices: Choices::new(&[]),
            candidates: 0,
        }
    }

    /// The picker for `snapshot`. Who was known before stays who he was.
    pub(super) fn next<N>(&self, snapshot: &Snapshot, new: &N, now: Duration) -> Self
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
        // Fewer than half cannot carry what was all: while a registry fills again, the held take their share.
        let ranks_held = 2 * live >= snapshot.instances().len();
        let mut endpoints: Vec<_> = (snapshot.instances().iter().enumerate())
            .map(|(index, instance)| Endpoint {
                instance: instance.clone(),
                held: index >= live,
                rank: Rank::of(instance, index >= live && ranks_held),
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
        for (endpoint, &weight) in endpoints.iter_mut().zip(&weights) {
            // One of weight 0 stands here beside others only where all are down: no share to hold it to.
            if weight > 0 {
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
    pub(super) fn candidates(&self) -> &[Endpoint<S>] {
        &self.endpoints[..self.candidates]
    }

    /// The held instance of the least load that is `eligible`, for where no live one is. Asks all, which is rare.
    pub(super) fn pick_held(
        &self,
        load: impl Fn(usize) -> f64,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        (self.candidates..self.endpoints.len())
            .filter(|&index| self.endpoints[index].rank == Rank::Held && eligible(index))
            .min_by(|&a, &b| load(a).total_cmp(&load(b)))
    }

    /// What a new instance is expected to cost: the median of the others, so that it is tried soon but not flooded.
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
    pub(super) fn lift_surplus(&self, settings: &Settings, now: Duration) -> Vec<Arc<Instance>> {
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
    pub(super) fn load(&self, now: Duration) -> f64 {
        if self.member.is_ejected() {
            // Drawn at all, it is due for its probe.
            return 0.0;
        }
        let in_flight = self.member.in_flight() as f64;
        self.member.cost(now) * (in_flight / self.share + 1.0)
    }
}

impl Rank {
    pub(super) fn of(instance: &Instance, held: bool) -> Self {
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
