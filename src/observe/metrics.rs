use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use super::{Event, Observe, words};
use crate::algo::breaker::State;

/// Turns events into figures of the `metrics` facade: counters of what happened, gauges of what is so.
///
/// A handle is asked of the recorder once for each set of labels, so install the recorder first. Clones share the
/// handles. Instances are no label, for they come and go; `TracingObserver` names them.
#[derive(Clone)]
pub struct MetricsObserver {
    figures: Arc<Figures>,
}

#[derive(Default)]
struct Figures {
    counters: Series<Counter>,
    gauges: Series<Gauge>,
}

impl MetricsObserver {
    /// Describes the figures to the installed recorder.
    pub fn new() -> Self {
        with_recorder(|recorder| {
            for (name, what) in COUNTERS {
                recorder.describe_counter(name.into(), Some(Unit::Count), what.into());
            }
            for (name, what) in GAUGES {
                recorder.describe_gauge(name.into(), Some(Unit::Count), what.into());
            }
        });
        Self {
            figures: Arc::default(),
        }
    }

    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let counter = self.figures.counters.handle(name, labels, |recorder, key| {
            recorder.register_counter(key, &METADATA)
        });
        counter.increment(1);
    }

    fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let gauge = self.figures.gauges.handle(name, labels, |recorder, key| {
            recorder.register_gauge(key, &METADATA)
        });
        gauge.set(value);
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsObserver")
    }
}

impl Observe for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::Refused(rejected) => self.count(
                REFUSED,
                &[
                    ("layer", rejected.layer()),
                    ("name", rejected.name().unwrap_or_default()),
                    ("reason", words::reason(rejected.reason())),
                ],
            ),
            Event::StateChanged { breaker, from, to } => {
                let (left, entered) = (words::state(from), words::state(to));
                self.count(
                    TRANSITIONS,
                    &[("name", breaker), ("from", left), ("to", entered)],
                );
                // Every state is set, so that exactly one of them is 1 whatever was missed.
                for state in STATES {
                    let labels = [("name", breaker), ("state", words::state(state))];
                    self.set(STATE, &labels, f64::from(u8::from(state == to)));
                }
            }
            Event::Tripped { breaker, condition } => {
                let condition = words::condition(condition);
                self.count(TRIPS, &[("name", breaker), ("condition", condition)]);
            }
            Event::LimitChanged { name, limit } => {
                self.set(LIMIT, &[("name", name)], limit as f64);
            }
            Event::Retrying { retry, .. } => self.count(ATTEMPTS, &[("name", retry)]),
            Event::GaveUp { retry, reason, .. } => {
                let reason = words::give_up(reason);
                self.count(GIVEN_UP, &[("name", retry), ("reason", reason)]);
            }
            Event::Hedging { hedge, .. } => self.count(HEDGES, &[("name", hedge)]),
            Event::HedgeWon { hedge, .. } => self.count(WINS, &[("name", hedge)]),
            Event::Coalesced { coalesce } => self.count(COALESCED, &[("name", coalesce)]),
            Event::BudgetExhausted { retry } => self.count(EXHAUSTED, &[("name", retry)]),
            Event::FellBack { fallback } => self.count(FALLBACKS, &[("name", fallback)]),
            Event::FaultInjected { chaos, fault } => {
                self.count(FAULTS, &[("name", chaos), ("fault", fault)]);
            }
            Event::Ejected { service, .. } => self.count(EJECTIONS, &[("service", service)]),
            Event::Returned { service, .. } => self.count(RETURNS, &[("service", service)]),
            Event::InstancesChanged {
                service,
                instances,
                held,
            } => {
                self.set(INSTANCES, &[("service", service)], instances as f64);
                self.set(HELD, &[("service", service)], held as f64);
            }
            Event::RegistryFailed {
                registry, service, ..
            } => self.count(FAILURES, &[("registry", registry), ("service", service)]),
            Event::RegistryRecovered { registry, service } => {
                self.count(RECOVERIES, &[("registry", registry), ("service", service)]);
            }
            Event::SnapshotLoaded { .. } => self.count(SNAPSHOT, &[("outcome", "loaded")]),
            Event::SnapshotRefused { .. } => self.count(SNAPSHOT, &[("outcome", "refused")]),
            Event::SnapshotNotWritten { .. } => self.count(SNAPSHOT, &[("outcome", "not_written")]),
            Event::Registered {
                registry,
                service,
                again,
                ..
            } => self.count(
                REGISTRATIONS,
                &[
                    ("registry", registry),
                    ("service", service),
                    ("again", if again { "true" } else { "false" }),
                ],
            ),
            Event::Deregistered {
                registry, service, ..
            } => self.count(
                DEREGISTRATIONS,
                &[("registry", registry), ("service", service)],
            ),
            Event::StoreFailed { store, .. } => self.count(STORE_FAILURES, &[("store", store)]),
            Event::StoreRecovered { store } => self.count(STORE_RECOVERIES, &[("store", store)]),
        }
    }
}

/// The handles resolved so far, sorted by name and labels. Read without a lock, copied when one is added.
struct Series<H>(ArcSwap<Vec<(Key, H)>>);

impl<H> Default for Series<H> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<H: Clone> Series<H> {
    fn handle(
        &self,
        name: &'static str,
        labels: &[(&'static str, &str)],
        register: impl FnOnce(&dyn Recorder, &Key) -> H,
    ) -> H {
        let known = self.0.load();
        if let Ok(at) = find(&known, name, labels) {
            return known[at].1.clone();
        }
        let owned = labels
            .iter()
            .map(|(label, value)| Label::new(*label, (*value).to_owned()));
        let key = Key::from_parts(name, owned.collect::<Vec<_>>());
        let handle = with_recorder(|recorder| register(recorder, &key));
        self.0.rcu(|known| {
            let mut more = Vec::clone(known);
            if let Err(at) = find(&more, name, labels) {
                more.insert(at, (key.clone(), handle.clone()));
            }
            more
        });
        handle
    }
}

fn find<H>(known: &[(Key, H)], name: &str, labels: &[(&str, &str)]) -> Result<usize, usize> {
    known.binary_search_by(|(key, _)| match key.name().cmp(name) {
        Ordering::Equal => {
            let values = key.labels().map(Label::value);
            values.cmp(labels.iter().map(|(_, value)| *value))
        }
        other => other,
    })
}

const REFUSED: &str = "buttress.calls.refused";
const TRANSITIONS: &str = "buttress.circuit_breaker.transitions";
const TRIPS: &str = "buttress.circuit_breaker.trips";
const STATE: &str = "buttress.circuit_breaker.state";
const LIMIT: &str = "buttress.concurrency.limit";
const ATTEMPTS: &str = "buttress.retry.attempts";
const GIVEN_UP: &str = "buttress.retry.given_up";
const HEDGES: &str = "buttress.hedge.attempts";
const WINS: &str = "buttress.hedge.wins";
const COALESCED: &str = "buttress.coalesce.shared";
const EXHAUSTED: &str = "buttress.retry.budget_exhausted";
const FALLBACKS: &str = "buttress.fallback.answers";
const FAULTS: &str = "buttress.chaos.faults";
const EJECTIONS: &str = "buttress.balance.ejections";
const RETURNS: &str = "buttress.balance.returns";
const INSTANCES: &str = "buttress.discovery.instances";
const HELD: &str = "buttress.discovery.instances_held";
const SNAPSHOT: &str = "buttress.discovery.snapshot";
const FAILURES: &str = "buttress.registry.failures";
const RECOVERIES: &str = "buttress.registry.recoveries";
const REGISTRATIONS: &str = "buttress.registry.registrations";
const DEREGISTRATIONS: &str = "buttress.registry.deregistrations";
const STORE_FAILURES: &str = "buttress.store.failures";
const STORE_RECOVERIES: &str = "buttress.store.recoveries";

const COUNTERS: [(&str, &str); 20] = [
    (REFUSED, "calls refused or given up by a layer"),
    (TRANSITIONS, "changes of a circuit breaker's state"),
    (
        TRIPS,
        "conditions that opened a circuit breaker, or would have",
    ),
    (ATTEMPTS, "attempts after the first"),
    (GIVEN_UP, "calls that were to be tried again and were not"),
    (
        HEDGES,
        "attempts sent beside one that is slow or has failed",
    ),
    (WINS, "answers that a hedge gave"),
    (COALESCED, "callers who shared the call of another"),
    (
        EXHAUSTED,
        "retries and hedges not made because the budget was spent",
    ),
    (FALLBACKS, "calls answered by a fallback"),
    (FAULTS, "faults that calls met on purpose"),
    (EJECTIONS, "instances taken out because they kept failing"),
    (RETURNS, "ejected instances that are called again"),
    (SNAPSHOT, "reads and failed writes of the snapshot on disk"),
    (FAILURES, "questions a registry did not answer"),
    (RECOVERIES, "times a registry answered again"),
    (REGISTRATIONS, "registrations of an instance"),
    (DEREGISTRATIONS, "instances taken out of a registry"),
    (
        STORE_FAILURES,
        "times a store did not answer, or not in time",
    ),
    (STORE_RECOVERIES, "times a store was back"),
];

const GAUGES: [(&str, &str); 4] = [
    (
        STATE,
        "1 for the state a circuit breaker is in, 0 for others",
    ),
    (LIMIT, "calls that a limit lets be under way at once"),
    (
        INSTANCES,
        "instances known of a service, held ones included",
    ),
    (HELD, "instances kept although the registry dropped them"),
];

const STATES: [State; 6] = [
    State::Closed,
    State::Open,
    State::HalfOpen,
    State::ForcedOpen,
    State::Disabled,
    State::MetricsOnly,
];

const METADATA: Metadata<'static> = Metadata::new("buttress", Level::INFO, Some(module_path!()));
