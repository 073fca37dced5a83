//! What listeners may do, and what the built-in ones make of each event.
#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use buttress::Rejected;
use buttress::algo::breaker::{Condition, State};
use buttress::error::Reason;
use buttress::layers::bulkhead::Bulkhead;
use buttress::observe::{Event, GiveUp, MetricsObserver, Observe, Observer, TracingObserver};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

const SECOND: Duration = Duration::from_secs(1);

/// One of each kind.
fn every_event(see: impl Fn(&Event<'_>)) {
    let rejected = Rejected::new("circuit breaker", Reason::Open)
        .named("orders")
        .at("orders-1")
        .retry_after(SECOND);
    let (service, instance, registry) = ("orders", "orders-1", "consul");
    see(&Event::Refused(&rejected));
    see(&Event::Tripped {
        breaker: "orders",
        condition: Condition::FailureRate,
    });
    see(&Event::StateChanged {
        breaker: "orders",
        from: State::Closed,
        to: State::Open,
    });
    see(&Event::LimitChanged {
        name: "orders",
        limit: 20,
    });
    see(&Event::Retrying {
        retry: "orders",
        attempt: 2,
        wait: SECOND,
    });
    see(&Event::GaveUp {
        retry: "orders",
        attempts: 3,
        reason: GiveUp::AttemptsUsedUp,
    });
    see(&Event::Hedging {
        hedge: "orders",
        attempt: 2,
    });
    see(&Event::HedgeWon {
        hedge: "orders",
        attempt: 2,
    });
    see(&Event::Coalesced { coalesce: "orders" });
    see(&Event::BudgetExhausted { retry: "orders" });
    see(&Event::FellBack { fallback: "orders" });
    see(&Event::FaultInjected {
        chaos: "orders",
        fault: "hang",
    });
    see(&Event::Ejected {
        service,
        instance,
        wait: SECOND,
    });
    see(&Event::Returned { service, instance });
    see(&Event::InstancesChanged {
        service,
        instances: 5,
        held: 2,
    });
    see(&Event::RegistryFailed {
        registry,
        service,
        error: "503",
        wait: SECOND,
    });
    see(&Event::RegistryRecovered { registry, service });
    see(&Event::Registered {
        registry,
        service,
        instance,
        again: true,
    });
    see(&Event::Deregistered {
        registry,
        service,
        instance,
    });
    let (file, error) = ("/var/lib/trips/instances.snapshot", "its checksum is wrong");
    see(&Event::SnapshotLoaded {
        file,
        services: 2,
        instances: 5,
    });
    see(&Event::SnapshotRefused { file, error });
    see(&Event::SnapshotNotWritten { file, error });
    let store = "redis at 10.0.0.9:6379/0";
    see(&Event::StoreFailed {
        store,
        error: "no answer in time",
        wait: SECOND,
    });
    see(&Event::StoreRecovered { store });
}

/// Runs `tell` with a recorder, and returns each series as `name{label=value}` with its figure.
fn figures(tell: impl FnOnce(MetricsObserver)) -> BTreeMap<String, f64> {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || tell(MetricsObserver::new()));
    let series = recorder.snapshotter().snapshot().into_vec();
    let figure = |value| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.into_inner(),
        DebugValue::Histogram(_) => panic!("there are none"),
    };
    series
        .into_iter()
        .map(|(key, unit, description, value)| {
            assert!(
                unit.is_some() && description.is_some(),
                "{key:?} is described"
            );
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|l| format!("{}={}", l.key(), l.value()))
                .collect();
            (
                format!("{}{{{}}}", key.key().name(), labels.join(",")),
                figure(value),
            )
        })
        .collect()
}

#[test]
fn every_event_becomes_a_figure_that_the_table_names() {
    let seen = figures(|observer| every_event(|event| observer.on_event(event)));
    let at_one = [
        "buttress.calls.refused{layer=circuit breaker,name=orders,reason=open}",
        "buttress.circuit_breaker.state{name=orders,state=open}",
        "buttress.circuit_breaker.trips{name=orders,condition=failure_rate}",
        "buttress.circuit_breaker.transitions{name=orders,from=closed,to=open}",
        "buttress.retry.attempts{name=orders}",
        "buttress.retry.given_up{name=orders,reason=attempts_used_up}",
        "buttress.hedge.attempts{name=orders}",
        "buttress.hedge.wins{name=orders}",
        "buttress.coalesce.shared{name=orders}",
        "buttress.retry.budget_exhausted{name=orders}",
        "buttress.fallback.answers{name=orders}",
        "buttress.chaos.faults{name=orders,fault=hang}",
        "buttress.balance.ejections{service=orders}",
        "buttress.balance.returns{service=orders}",
        "buttress.registry.failures{registry=consul,service=orders}",
        "buttress.registry.recoveries{registry=consul,service=orders}",
        "buttress.registry.registrations{registry=consul,service=orders,again=true}",
        "buttress.registry.deregistrations{registry=consul,service=orders}",
        "buttress.discovery.snapshot{outcome=loaded}",
        "buttress.discovery.snapshot{outcome=refused}",
        "buttress.discovery.snapshot{outcome=not_written}",
        "buttress.store.failures{store=redis at 10.0.0.9:6379/0}",
        "buttress.store.recoveries{store=redis at 10.0.0.9:6379/0}",
    ];
    for series in at_one {
        assert_eq!(seen.get(series), Some(&1.0), "{series}");
    }
    assert_eq!(seen["buttress.discovery.instances{service=orders}"], 5.0);
    assert_eq!(
        seen["buttress.discovery.instances_held{service=orders}"],
        2.0
    );
    assert_eq!(seen["buttress.concurrency.limit{name=orders}"], 20.0);
    // Five more are the other states, at 0.
    assert_eq!(seen.len(), at_one.len() + 3 + 5);

    let table = include_str!("../docs/observe.md");
    for series in seen.keys() {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
            .unwrap_or_else(|| panic!("no row for {name}"));
        for label in labels.split(',') {
            let (label, _) = label.split_once('=').unwrap();
            assert!(row.contains(&format!("`{label}`")), "{label} of {name}");
        }
    }
}

#[test]
fn the_state_gauge_clears_the_old_state() {
    use State::{Closed, ForcedOpen, HalfOpen, Open};
    let seen = figures(|observer| {
        for (from, to) in [
            (Closed, Open),
            (Open, HalfOpen),
            (HalfOpen, Closed),
            (Closed, ForcedOpen),
        ] {
            observer.on_event(&Event::StateChanged {
                breaker: "orders",
                from,
                to,
            });
        }
    });
    let in_force: Vec<_> = seen
        .iter()
        .filter(|(series, value)| series.contains(".state{") && **value == 1.0)
        .map(|(series, _)| series.as_str())
        .collect();
    assert_eq!(
        in_force,
        ["buttress.circuit_breaker.state{name=orders,state=forced_open}"]
    );
}

#[test]
fn clones_share_their_handles_and_names_keep_apart() {
    let seen = figures(|observer| {
        let clone = observer.clone();
        for retry in ["orders", "stock", "a", "orders"] {
            observer.on_event(&Event::BudgetExhausted { retry });
            clone.on_event(&Event::BudgetExhausted { retry });
        }
    });
    let counts: Vec<_> = seen.into_iter().collect();
    let series = |name: &str, count| {
        (
            format!("buttress.retry.budget_exhausted{{name={name}}}"),
            count,
        )
    };
    assert_eq!(
        counts,
        [
            series("a", 2.0),
            series("orders", 4.0),
            series("stock", 2.0)
        ]
    );
}

#[test]
fn a_known_series_costs_no_allocation_and_nobody_listening_costs_nothing() {
    let silent = Observer::default();
    let allocated = allocation_counter::measure(|| every_event(|event| silent.emit(event)));
    let by_the_test = allocation_counter::measure(|| every_event(|_| {}));
    assert_eq!(allocated.count_total, by_the_test.count_total);

    figures(|observer| {
        every_event(|event| observer.on_event(event));
        let again = allocation_counter::measure(|| every_event(|event| observer.on_event(event)));
        assert_eq!(again.count_total, by_the_test.count_total);
    });
}

#[test]
fn every_event_is_traced_at_the_level_of_its_urgency() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .with_ansi(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        every_event(|event| TracingObserver.on_event(event));
    });
    let expected = "\
DEBUG buttress: call refused layer=\"circuit breaker\" name=\"orders\" instance=\"orders-1\" reason=\"open\" retry_after=1s
 INFO buttress: circuit breaker tripped name=\"orders\" condition=\"failure_rate\"
 WARN buttress: circuit breaker changed name=\"orders\" from=\"closed\" to=\"open\"
DEBUG buttress: concurrency limit changed name=\"orders\" limit=20
DEBUG buttress: retrying name=\"orders\" attempt=2 wait=1s
DEBUG buttress: retry gave up name=\"orders\" attempts=3 reason=\"attempts_used_up\"
DEBUG buttress: hedging name=\"orders\" attempt=2
DEBUG buttress: hedge won name=\"orders\" attempt=2
DEBUG buttress: call coalesced name=\"orders\"
DEBUG buttress: retry budget exhausted name=\"orders\"
DEBUG buttress: fallback answered name=\"orders\"
DEBUG buttress: fault injected name=\"orders\" fault=\"hang\"
 WARN buttress: instance ejected service=\"orders\" instance=\"orders-1\" wait=1s
 INFO buttress: instance returned service=\"orders\" instance=\"orders-1\"
 INFO buttress: instances changed service=\"orders\" instances=5 held=2
 WARN buttress: registry failed registry=\"consul\" service=\"orders\" error=\"503\" wait=1s
 INFO buttress: registry recovered registry=\"consul\" service=\"orders\"
 WARN buttress: instance registered again: the registry had forgotten it registry=\"consul\" service=\"orders\" instance=\"orders-1\"
 INFO buttress: instance deregistered registry=\"consul\" service=\"orders\" instance=\"orders-1\"
 INFO buttress: snapshot loaded file=\"/var/lib/trips/instances.snapshot\" services=2 instances=5
 WARN buttress: snapshot refused file=\"/var/lib/trips/instances.snapshot\" error=\"its checksum is wrong\"
 WARN buttress: snapshot not written file=\"/var/lib/trips/instances.snapshot\" error=\"its checksum is wrong\"
 WARN buttress: store failed store=\"redis at 10.0.0.9:6379/0\" error=\"no answer in time\" wait=1s
 INFO buttress: store recovered store=\"redis at 10.0.0.9:6379/0\"
";
    let written = String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
    assert_eq!(written, expected);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_listener_that_hangs_holds_up_nobody_but_the_call_that_told_it() {
    /// Says that it was told, and goes on when it is allowed to.
    struct Hangs {
        told: mpsc::Sender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }
    impl Observe for Hangs {
        fn on_event(&self, _: &Event<'_>) {
            self.told.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
    }
    let (told, was_told) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let bulkhead = Bulkhead::new("orders", 1).observe(Hangs {
        told,
        go_on: Mutex::new(may_go_on),
    });
    let permit = tokio_test::block_on(bulkhead.acquire()).unwrap();
    std::thread::scope(|threads| {
        let refused = threads.spawn(|| tokio_test::block_on(bulkhead.acquire()));
        was_told.recv().unwrap();
        // The listener hangs. The others come and go.
        drop(permit);
        drop(tokio_test::block_on(bulkhead.acquire()).unwrap());
        bulkhead.resize(2);
        assert_eq!(bulkhead.in_flight(), 0);
        go_on.send(()).unwrap();
        assert!(refused.join().unwrap().is_err());
    });
}

#[test]
fn two_listeners_hear_the_same_and_a_shared_one_hears_all() {
    #[derive(Default)]
    struct Count(Mutex<usize>);
    impl Observe for Count {
        fn on_event(&self, _: &Event<'_>) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let (left, right) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let observer = Observer::new((Arc::clone(&left), Arc::clone(&right)));
    for name in ["orders", "stock"] {
        let bulkhead = Bulkhead::new(name, 1).observe(observer.clone());
        let _held = tokio_test::block_on(bulkhead.acquire()).unwrap();
        assert!(tokio_test::block_on(bulkhead.acquire()).is_err());
    }
    assert_eq!((*left.0.lock().unwrap(), *right.0.lock().unwrap()), (2, 2));
}
