//! The resolver and registrations, through the public API, in paused time.

#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buttress::clock;
use buttress::deadline::Deadline;
use buttress::discovery::{
    BoxFuture, ErrorKind, Freshness, Instance, Registration, Registry, RegistryError, Renewal,
    ResolveError, Resolver, Snapshot, Status, Update, Updates,
};
use buttress::error::Reason;
use buttress::observe::{Event, Observe};
use buttress::registries::memory::Memory;
use tokio::sync::watch;

const FOREVER: Duration = Duration::MAX;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn instance(id: &str) -> Instance {
    Instance::new(id, "10.0.0.1", 8080)
}

fn ids(instances: &[Arc<Instance>]) -> Vec<&str> {
    instances.iter().map(|i| i.id.as_str()).collect()
}

async fn memory_of(service: &str, names: &[&str]) -> Memory {
    let memory = Memory::new();
    for id in names {
        memory
            .register(service, &instance(id), FOREVER)
            .await
            .unwrap();
    }
    memory
}

/// A registry that does as it is told.
#[derive(Clone)]
struct Fake {
    name: &'static str,
    mode: Arc<watch::Sender<Mode>>,
    begun: Arc<Mutex<Vec<Instant>>>,
    active: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Mode {
    Silent,
    Says(Vec<Instance>),
    Confirms,
    Fails,
    Panics,
}

impl Fake {
    fn new(name: &'static str, mode: Mode) -> Self {
        Self {
            name,
            mode: Arc::new(watch::Sender::new(mode)),
            begun: Arc::default(),
            active: Arc::default(),
        }
    }

    fn saying(name: &'static str, names: &[&str]) -> Self {
        Self::new(
            name,
            Mode::Says(names.iter().map(|id| instance(id)).collect()),
        )
    }

    fn says(&self, names: &[&str]) {
        let instances = names.iter().map(|id| instance(id)).collect();
        self.set(Mode::Says(instances));
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn watches(&self) -> usize {
        self.begun.lock().unwrap().len()
    }

    fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    fn error(&self) -> RegistryError {
        RegistryError::new(self.name, ErrorKind::Unreachable, "cannot connect")
            .caused_by(std::io::Error::other("connection refused"))
    }
}

struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Registry for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn watch(&self, _service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let this = self.clone();
        Box::pin(async move {
            this.begun.lock().unwrap().push(clock::now());
            this.active.fetch_add(1, Ordering::SeqCst);
            let _active = Active(this.active.clone());
            let mut mode = this.mode.subscribe();
            loop {
                let now = mode.borrow_and_update().clone();
                match now {
                    Mode::Silent => {}
                    Mode::Says(instances) => updates.instances(instances).await,
                    Mode::Confirms => updates.confirmed().await,
                    Mode::Fails => return this.error(),
                    Mode::Panics => panic!("a bug in the registry's adapter"),
                }
                let _ = mode.changed().await;
            }
        })
    }
}

/// Keeps what it hears, as text.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        let text = match event {
            Event::InstancesChanged {
                instances, held, ..
            } => {
                format!("{instances} instances, {held} held")
            }
            Event::RegistryFailed {
                registry, error, ..
            } => format!("{registry} failed: {error}"),
            Event::RegistryRecovered { registry, .. } => format!("{registry} recovered"),
            Event::Registered {
                instance, again, ..
            } => {
                format!(
                    "{instance} registered{}",
                    if *again { " again" } else { "" }
                )
            }
            Event::Deregistered { instance, .. } => format!("{instance} deregistered"),
            Event::Refused(rejected) => rejected.to_string(),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// ---- outages ----

#[tokio::test(start_paused = true)]
async fn a_registry_failure_never_changes_the_set() {
    let memory = memory_of("orders", &["a", "b"]).await;
    let watch = Resolver::new(memory.clone()).watch("orders");
    let before = watch.resolved().await.unwrap();
    assert_eq!(watch.freshness(), Freshness::Fresh);

    memory.set_down(true);
    clock::sleep(secs(86_400)).await;
    let after = watch.resolved().await.unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let age = secs(86_400);
    assert_eq!(watch.freshness(), Freshness::Stale { age });

    memory.set_down(false);
    clock::sleep(secs(60)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_fails_does_not_say_that_there_is_nobody() {
    let fake = Fake::saying("fake", &[]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    watch.resolved().await.unwrap_err();
    let authoritative = false;
    assert_eq!(watch.freshness(), Freshness::Empty { authoritative });
    fake.set(Mode::Fails);
    clock::sleep(secs(9)).await;
    assert_eq!(watch.freshness(), Freshness::Stale { age: secs(9) });
}

#[tokio::test(start_paused = true)]
async fn the_age_counts_from_the_last_confirmation() {
    let fake = Fake::saying("fake", &["a"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(50)).await;
    fake.set(Mode::Confirms);
    clock::sleep(secs(5)).await;
    fake.set(Mode::Fails);
    clock::sleep(secs(3)).await;
    assert_eq!(watch.freshness(), Freshness::Stale { age: secs(8) });
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_begun_again_after_a_jittered_wait_that_grows_to_a_minute() {
    let fake = Fake::new("fake", Mode::Fails);
    let _watch = Resolver::new(fake.clone()).watch("orders");
    clock::sleep(secs(3600)).await;
    let begun = fake.begun.lock().unwrap().clone();
    let waits: Vec<_> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        waits.iter().all(|w| (secs(1)..=secs(61)).contains(w)),
        "{waits:?}"
    );
    assert!(waits.iter().any(|&wait| wait > secs(15)), "{waits:?}");
    let different: BTreeSet<_> = waits.iter().collect();
    assert!(different.len() > waits.len() / 2, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_is_begun_again() {
    let fake = Fake::new("fake", Mode::Panics);
    let watch = Resolver::new(fake.clone()).watch("orders");
    clock::sleep(Duration::from_millis(1)).await;
    fake.says(&["a"]);
    assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn instances_older_than_max_stale_are_not_used_until_the_registry_returns() {
    let fake = Fake::saying("fake", &["a"]);
    let watch = Resolver::new(fake.clone())
        .max_stale(secs(600))
        .watch("orders");
    watch.resolved().await.unwrap();
    fake.set(Mode::Fails);
    clock::sleep(secs(599)).await;
    assert_eq!(watch.snapshot().instances().len(), 1);
    clock::sleep(secs(2)).await;
    assert_eq!(watch.snapshot().instances().len(), 0);
    assert_eq!(watch.freshness(), Freshness::Expired { age: secs(601) });
    assert_eq!(
        watch.resolved().await.unwrap_err().reason(),
        Reason::Unresolved
    );

    fake.says(&["a"]);
    clock::sleep(secs(61)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
    assert_eq!(watch.snapshot().instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_registry_that_does_not_fail_does_not_expire() {
    let fake = Fake::saying("fake", &["a"]);
    let watch = Resolver::new(fake).max_stale(secs(600)).watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(6000)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

// ---- the guard ----

#[tokio::test(start_paused = true)]
async fn an_empty_answer_does_not_empty_the_client_but_a_true_scale_to_zero_wins() {
    let memory = memory_of("orders", &["a", "b"]).await;
    let watch = Resolver::new(memory.clone()).watch("orders");
    watch.resolved().await.unwrap();

    memory.clear();
    clock::sleep(secs(59)).await;
    let held = watch.snapshot();
    assert_eq!((held.live().len(), ids(held.held())), (0, vec!["a", "b"]));
    assert_eq!(held.instances().len(), 2);

    clock::sleep(secs(2)).await;
    assert_eq!(watch.snapshot().instances().len(), 0);
    let authoritative = false;
    assert_eq!(watch.freshness(), Freshness::Empty { authoritative });
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_after_a_restart_keeps_the_rest_behind_those_it_names() {
    let fake = Fake::saying("fake", &["a", "b", "c", "d", "e"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    watch.resolved().await.unwrap();
    fake.set(Mode::Fails);
    clock::sleep(secs(5)).await;
    fake.says(&["d"]);
    clock::sleep(secs(20)).await;
    let snapshot = watch.snapshot();
    assert_eq!(ids(snapshot.instances()), ["d", "a", "b", "c", "e"]);
    assert_eq!(ids(snapshot.live()), ["d"]);

    fake.says(&["a", "b", "c", "d", "e"]);
    let snapshot = watch.changed(snapshot.version()).await;
    assert_eq!(ids(snapshot.live()), ["a", "b", "c", "d", "e"]);
    assert_eq!(snapshot.held().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_while_instances_are_held_does_not_drop_them() {
    let memory = memory_of("orders", &["a", "b"]).await;
    let watch = Resolver::new(memory.clone()).watch("orders");
    watch.resolved().await.unwrap();
    memory.clear();
    clock::sleep(secs(1)).await;
    memory.set_down(true);
    clock::sleep(secs(3600)).await;
    assert_eq!(ids(watch.snapshot().held()), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn leases_that_run_out_one_after_another_do_not_empty_the_client() {
    let memory = Memory::new();
    for id in 0..10 {
        let ttl = secs(20 + id);
        let orders = instance(&id.to_string());
        memory.register("orders", &orders, ttl).await.unwrap();
    }
    let watch = Resolver::new(memory).watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(31)).await;
    assert_eq!(watch.snapshot().held().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expires_with_all_its_instances_does_not_empty_the_client() {
    let fake = Fake::saying("fake", &["a", "b", "c", "d"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    watch.resolved().await.unwrap();
    // The connection breaks, the list is read again while nobody is back, and then they come one after another.
    fake.set(Mode::Fails);
    clock::sleep(Duration::from_millis(1)).await;
    for names in [&[][..], &["c"], &["b", "c"], &["a", "b", "c"]] {
        fake.says(names);
        clock::sleep(secs(5)).await;
        let snapshot = watch.snapshot();
        assert_eq!(ids(snapshot.live()), names);
        assert_eq!(snapshot.instances().len(), 4);
    }
    // The one that does not come back is given up.
    clock::sleep(secs(60)).await;
    assert_eq!(ids(watch.snapshot().instances()), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_found_is_doubted_and_a_server_that_fails_is_not_believed_at_all() {
    for (mode, left) in [(Mode::Says(Vec::new()), 0), (Mode::Fails, 2)] {
        let fake = Fake::saying("fake", &["a", "b"]);
        let watch = Resolver::new(fake.clone()).watch("orders");
        watch.resolved().await.unwrap();
        fake.set(mode);
        clock::sleep(secs(59)).await;
        assert_eq!(watch.snapshot().instances().len(), 2);
        clock::sleep(secs(3600)).await;
        assert_eq!(watch.snapshot().instances().len(), left);
    }
}

#[tokio::test(start_paused = true)]
async fn the_cache_adds_no_staleness_of_its_own() {
    let fake = Fake::saying("fake", &["a", "b", "c"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    let mut seen = watch.resolved().await.unwrap().version();
    let begun = clock::now();
    for names in [&["a", "b"][..], &["a", "b", "d", "e"], &["d", "e", "f"]] {
        fake.says(names);
        let snapshot = watch.changed(seen).await;
        assert_eq!(ids(snapshot.instances()), names);
        seen = snapshot.version();
    }
    assert_eq!(clock::now(), begun);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_out_on_purpose_is_gone_at_once() {
    let memory = memory_of("orders", &["a"]).await;
    let watch = Resolver::new(memory.clone()).watch("orders");
    let version = watch.resolved().await.unwrap().version();
    memory.deregister("orders", &instance("a")).await.unwrap();
    let gone = clock::now();
    assert_eq!(watch.changed(version).await.instances().len(), 0);
    assert_eq!(clock::now(), gone);
    let authoritative = true;
    assert_eq!(watch.freshness(), Freshness::Empty { authoritative });
}

// ---- snapshots ----

#[tokio::test(start_paused = true)]
async fn an_instance_that_did_not_change_is_the_same_and_an_equal_answer_is_no_change() {
    let fake = Fake::saying("fake", &["a", "b"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    let first = watch.resolved().await.unwrap();

    fake.says(&["b", "a"]);
    clock::sleep(secs(1)).await;
    assert_eq!(watch.snapshot().version(), first.version());

    fake.set(Mode::Says(vec![instance("a"), instance("b").weight(7)]));
    let second = watch.changed(first.version()).await;
    assert_eq!(second.version(), first.version() + 1);
    assert!(Arc::ptr_eq(&first.instances()[0], &second.instances()[0]));
    assert_eq!(second.instances()[1].weight, 7);
    assert_eq!(first.instances()[1].key(), second.instances()[1].key());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_gets_the_latest_snapshot() {
    let fake = Fake::saying("fake", &["a"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    let seen = watch.resolved().await.unwrap().version();
    for names in [&["a", "b"][..], &["a", "b", "c"]] {
        fake.says(names);
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(watch.changed(seen).await.instances().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_not_up_are_not_called() {
    let named = [
        instance("a"),
        instance("b").status(Status::Starting),
        instance("c").status(Status::OutOfService),
        instance("d").status(Status::Down),
    ];
    let fake = Fake::new("fake", Mode::Says(named.into()));
    let watch = Resolver::new(fake).watch("orders");
    assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["a"]);
}

// ---- one watch ----

#[tokio::test(start_paused = true)]
async fn one_watch_serves_everybody_and_ends_with_the_last_of_them() {
    let fake = Fake::saying("fake", &["a"]);
    let resolver = Resolver::new(fake.clone());
    let watch = resolver.watch("orders");
    let other = resolver.clone().watch("orders");
    drop(resolver);
    watch.resolved().await.unwrap();
    assert_eq!((fake.watches(), fake.active()), (1, 1));

    drop(watch);
    clock::sleep(secs(1)).await;
    assert_eq!(fake.active(), 1);
    drop(other);
    clock::sleep(secs(1)).await;
    assert_eq!(fake.active(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_holds_is_kept_for_a_minute_for_the_next_who_asks() {
    let fake = Fake::saying("fake", &["a"]);
    let resolver = Resolver::new(fake.clone());
    let first = resolver.watch("orders").resolved().await.unwrap();
    clock::sleep(secs(59)).await;
    let watch = resolver.watch("orders");
    assert!(Arc::ptr_eq(&first, &watch.snapshot()), "at hand");
    clock::sleep(secs(600)).await;
    assert_eq!((fake.watches(), fake.active()), (1, 1), "somebody holds it");

    drop(watch);
    clock::sleep(secs(59)).await;
    assert_eq!(fake.active(), 1);
    clock::sleep(secs(2)).await;
    assert_eq!(fake.active(), 0);
    resolver.watch("orders").resolved().await.unwrap();
    assert_eq!(fake.watches(), 2);
    drop(resolver);
    clock::sleep(secs(1)).await;
    assert_eq!(fake.active(), 0, "nobody can ask any more");
}

#[tokio::test(start_paused = true)]
async fn a_name_without_instances_is_not_kept() {
    let fake = Fake::saying("fake", &[]);
    let resolver = Resolver::new(fake.clone());
    for n in 0..100 {
        let watch = resolver.watch(format!("no-{n}"));
        watch.resolved().await.unwrap_err();
        assert_eq!(fake.active(), 1);
        drop(watch);
        clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(fake.active(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_many_services_are_kept_that_nobody_holds() {
    let fake = Fake::saying("fake", &["a"]);
    let resolver = Resolver::new(fake.clone());
    let held = resolver.watch("held");
    held.resolved().await.unwrap();
    for n in 0..3000 {
        resolver.watch(n.to_string()).resolved().await.unwrap();
        assert!(fake.active() <= 1025, "{}", fake.active());
    }
    assert_eq!(held.freshness(), Freshness::Fresh);
}

#[test]
fn a_service_is_watched_anew_when_the_runtime_of_its_watch_has_ended() {
    let fake = Fake::saying("fake", &["a"]);
    let resolver = Resolver::new(fake.clone());
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let kept = runtime().block_on(async {
        let watch = resolver.watch("orders");
        watch.resolved().await.unwrap();
        watch
    });
    assert!(matches!(kept.freshness(), Freshness::Stale { .. }));
    runtime().block_on(async {
        let watch = resolver.watch("orders");
        assert_eq!(watch.resolved().await.unwrap().instances().len(), 1);
        assert_eq!(watch.freshness(), Freshness::Fresh);
    });
    drop(kept);
}

#[tokio::test]
async fn what_is_printed_for_debugging_names_the_registries_alone() {
    let resolver = Resolver::new(Fake::saying("consul", &["a"])).or(Memory::new());
    let text = format!("{resolver:?}");
    assert!(
        text.contains(r#"registries: ["consul", "memory"]"#),
        "{text}"
    );
}

// ---- the chain ----

#[tokio::test(start_paused = true)]
async fn a_later_registry_is_asked_after_a_second_of_silence() {
    let slow = Fake::new("slow", Mode::Silent);
    let next = Fake::saying("next", &["b"]);
    let watch = Resolver::new(slow.clone()).or(next.clone()).watch("orders");
    let start = clock::now();
    assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["b"]);
    assert_eq!(clock::now() - start, secs(1));

    slow.says(&["a"]);
    assert_eq!(ids(watch.changed(1).await.instances()), ["a"]);
    assert_eq!(next.active(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_registry_that_answers_in_time_is_alone_asked() {
    let first = Fake::new("first", Mode::Silent);
    let next = Fake::saying("next", &["b"]);
    let watch = Resolver::new(first.clone())
        .or(next.clone())
        .watch("orders");
    clock::sleep(Duration::from_millis(900)).await;
    first.says(&["a"]);
    assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["a"]);
    clock::sleep(secs(60)).await;
    assert_eq!(next.watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_registry_is_asked_at_once_when_the_first_fails_or_knows_nothing() {
    for mode in [Mode::Fails, Mode::Says(Vec::new())] {
        let first = Fake::new("first", mode);
        let next = Fake::saying("next", &["b"]);
        let watch = Resolver::new(first).or(next).watch("orders");
        let start = clock::now();
        assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["b"]);
        assert_eq!(clock::now(), start);
        assert_eq!(watch.freshness(), Freshness::Fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_never_leads_away_from_instances_already_known() {
    let first = Fake::saying("first", &["a"]);
    let next = Fake::saying("next", &["b"]);
    let watch = Resolver::new(first.clone())
        .or(next.clone())
        .watch("orders");
    watch.resolved().await.unwrap();
    first.set(Mode::Fails);
    clock::sleep(secs(86_400)).await;
    assert_eq!(ids(watch.snapshot().instances()), ["a"]);
    assert_eq!(next.watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_leaves_the_first_registry_is_found_in_the_next_without_a_gap() {
    let first = memory_of("orders", &["a"]).await;
    let next = Fake::new("next", Mode::Silent);
    let watch = Resolver::new(first.clone())
        .or(next.clone())
        .watch("orders");
    let version = watch.resolved().await.unwrap().version();
    first.deregister("orders", &instance("a")).await.unwrap();
    clock::sleep(Duration::from_millis(500)).await;
    assert_eq!(ids(watch.snapshot().instances()), ["a"]);
    next.says(&["b"]);
    assert_eq!(ids(watch.changed(version).await.instances()), ["b"]);
    assert_eq!(watch.snapshot().version(), version + 1);
}

// ---- the first answer ----

#[tokio::test(start_paused = true)]
async fn a_service_that_never_resolves_is_refused_in_bounded_time_with_what_each_registry_said() {
    let heard = Heard::default();
    let consul = Fake::new("consul at http://10.0.0.9:8500", Mode::Fails);
    let file = Fake::new("file instances.toml", Mode::Says(Vec::new()));
    let silent = Fake::new("memory", Mode::Silent);
    let resolver = Resolver::new(consul).or(file).or(silent);
    let watch = resolver.observe(heard.clone()).watch("orders");

    let start = clock::now();
    let rejected = watch.resolved().await.unwrap_err();
    assert_eq!(clock::now() - start, secs(3));
    assert_eq!(rejected.reason(), Reason::Unresolved);
    assert_eq!(rejected.name(), Some("orders"));
    assert!(rejected.wait_hint().is_some_and(|wait| wait <= secs(60)));
    let source = rejected.source().unwrap();
    assert_eq!(
        source.to_string(),
        "consul at http://10.0.0.9:8500: cannot connect: connection refused; \
         file instances.toml: knows no such service; memory: has not answered yet"
    );
    let error = source.downcast_ref::<ResolveError>().unwrap();
    assert!(error.source().unwrap().is::<RegistryError>());
    assert!(heard.take().contains(&rejected.to_string()));

    // Only the first calls wait: those that come later would but pile up.
    let start = clock::now();
    watch.resolved().await.unwrap_err();
    assert_eq!(clock::now(), start);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_every_registry_had_its_moment() {
    let empty = Fake::saying("empty", &[]);
    let slow = Fake::new("slow", Mode::Silent);
    let watch = Resolver::new(empty).or(slow.clone()).watch("orders");
    clock::sleep(Duration::from_millis(500)).await;
    assert_eq!(watch.snapshot().version(), 0);
    slow.says(&["b"]);
    assert_eq!(ids(watch.changed(0).await.instances()), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_every_registry_denies_is_refused_at_once() {
    let empty = || Fake::saying("empty", &[]);
    let watch = Resolver::new(empty()).or(empty()).watch("orders");
    let start = clock::now();
    let rejected = watch.resolved().await.unwrap_err();
    assert_eq!(clock::now(), start);
    let said = rejected.source().unwrap().to_string();
    assert_eq!(
        said,
        "empty: knows no such service; empty: knows no such service"
    );
}

#[tokio::test(start_paused = true)]
async fn resolving_never_waits_past_the_deadline() {
    let watch = Resolver::new(Fake::new("slow", Mode::Silent)).watch("orders");
    let start = clock::now();
    let deadline = Deadline::within(Duration::from_millis(250));
    let rejected = deadline.scope(watch.resolved()).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::Unresolved);
    assert_eq!(clock::now() - start, Duration::from_millis(250));
    assert_eq!(watch.freshness(), Freshness::Bootstrap);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_comes_up_within_the_first_answers_limit_is_waited_for() {
    let fake = Fake::new("slow", Mode::Fails);
    let resolver = Resolver::new(fake.clone()).first_answer(secs(30));
    let watch = resolver.watch("orders");
    clock::sleep(Duration::from_millis(1)).await;
    fake.says(&["a"]);
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_instances_are_all_out_of_service_has_no_instance() {
    let named = vec![instance("a").status(Status::OutOfService)];
    let watch = Resolver::new(Fake::new("fake", Mode::Says(named))).watch("orders");
    let rejected = watch.resolved().await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::NoInstance);
    let said = rejected.source().unwrap().to_string();
    assert_eq!(said, "fake: names 1 instance, which is not up");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_list_is_resolved_and_an_empty_one_refused() {
    use buttress::discovery::Watch;
    let list = Watch::fixed("orders", [instance("a")]);
    assert_eq!(list.resolved().await.unwrap().instances().len(), 1);
    assert_eq!(list.freshness(), Freshness::Bootstrap);
    let empty = Watch::fixed("orders", []);
    assert_eq!(
        empty.resolved().await.unwrap_err().reason(),
        Reason::Unresolved
    );
}

// ---- events ----

#[tokio::test(start_paused = true)]
async fn the_observer_hears_of_changes_holds_failures_and_recoveries() {
    let heard = Heard::default();
    let fake = Fake::saying("fake", &["a", "b"]);
    let watch = Resolver::new(fake.clone())
        .observe(heard.clone())
        .watch("orders");
    watch.resolved().await.unwrap();
    fake.set(Mode::Fails);
    clock::sleep(Duration::from_millis(500)).await;
    fake.says(&["a"]);
    clock::sleep(secs(5)).await;
    fake.says(&[]);
    clock::sleep(secs(61)).await;
    let expected = [
        "2 instances, 0 held",
        "fake failed: cannot connect: connection refused",
        "fake recovered",
        "1 instances, 0 held",
        // The guard remembers the one that went a moment before.
        "2 instances, 2 held",
        "1 instances, 1 held",
        "0 instances, 0 held",
    ];
    assert_eq!(heard.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_ends_neither_a_watch_nor_a_registration() {
    struct Panics;
    impl Observe for Panics {
        fn on_event(&self, _: &Event<'_>) {
            panic!("a bug in the observer");
        }
    }
    let memory = Memory::new();
    let _registered = Registration::new(memory.clone(), "orders", instance("a"))
        .observe(Panics)
        .start();
    let watch = Resolver::new(memory.clone())
        .observe(Panics)
        .watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    memory
        .register("orders", &instance("b"), FOREVER)
        .await
        .unwrap();
    clock::sleep(secs(1)).await;
    assert_eq!(ids(watch.snapshot().live()), ["a", "b"]);
}

// ---- readers ----

#[tokio::test(start_paused = true)]
async fn each_reader_gets_the_difference_from_what_it_saw_itself() {
    let fake = Fake::saying("fake", &["a", "b", "c"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    let (mut quick, mut slow) = (watch.changes(), watch.changes());
    for reader in [&mut quick, &mut slow] {
        let first = reader.changed().await;
        assert_eq!(ids(&first.added), ["a", "b", "c"]);
        assert_eq!((first.updated.len(), first.removed.len()), (0, 0));
    }

    fake.says(&["a", "b", "c", "d"]);
    assert_eq!(ids(&quick.changed().await.added), ["d"]);
    let moved = Instance::new("c", "10.0.0.9", 8080);
    fake.set(Mode::Says(vec![
        instance("b").weight(7),
        moved,
        instance("d"),
        instance("e"),
    ]));
    let second = quick.changed().await;
    assert_eq!(ids(&second.added), ["c", "e"]);
    assert_eq!(ids(&second.updated), ["b"]);
    let mut removed = ids(&second.removed);
    removed.sort_unstable();
    assert_eq!(removed, ["a", "c"]);
    assert_eq!(second.updated[0].weight, 7);

    // It missed a snapshot, and nothing of what came of it.
    let both = slow.changed().await;
    assert_eq!(ids(&both.added), ["c", "d", "e"]);
    assert_eq!(ids(&both.updated), ["b"]);
    assert_eq!(both.snapshot.version(), second.snapshot.version());
}

#[tokio::test(start_paused = true)]
async fn held_instances_are_not_removed_before_they_are_given_up() {
    let fake = Fake::saying("fake", &["a", "b", "c"]);
    let mut changes = Resolver::new(fake.clone()).watch("orders").changes();
    changes.changed().await;
    fake.says(&[]);
    let change = changes.changed().await;
    assert_eq!(change.snapshot.held().len(), 3);
    assert_eq!(change.removed.len(), 0);
    assert_eq!(changes.changed().await.removed.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_change_can_be_dropped_and_a_reader_keeps_the_watch() {
    use futures_util::{FutureExt as _, StreamExt as _};

    let fake = Fake::saying("fake", &["a"]);
    let mut changes = Resolver::new(fake.clone()).watch("orders").changes();
    changes.changed().await;
    assert!(changes.changed().now_or_never().is_none());
    fake.says(&["a", "b"]);
    clock::sleep(secs(600)).await;
    assert_eq!(fake.active(), 1);
    // It is a stream as well.
    assert_eq!(ids(&changes.next().await.unwrap().added), ["b"]);
    assert!(changes.next().now_or_never().is_none());
    drop(changes);
    clock::sleep(secs(1)).await;
    assert_eq!(fake.active(), 0);
}

#[tokio::test(start_paused = true)]
async fn towers_own_balance_calls_the_instances_by_their_identity() {
    use tower::balance::p2c::Balance;
    use tower::load::{CompleteOnResponse, PendingRequests};
    use tower::{BoxError, Service, ServiceExt, service_fn};

    let fake = Fake::saying("fake", &["a", "b"]);
    let watch = Resolver::new(fake.clone()).watch("orders");
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let discover = watch.discover(move |instance| {
        count.fetch_add(1, Ordering::SeqCst);
        let id = instance.id.clone();
        let call = service_fn(move |(): ()| std::future::ready(Ok::<_, BoxError>(id.clone())));
        PendingRequests::new(call, CompleteOnResponse::default())
    });
    let mut balance = Balance::new(discover);
    let mut called = async || {
        let mut called = BTreeSet::new();
        for _ in 0..50 {
            called.insert(balance.ready().await.unwrap().call(()).await.unwrap());
        }
        Vec::from_iter(called)
    };
    assert_eq!(called().await, ["a", "b"]);
    assert_eq!(made.load(Ordering::SeqCst), 2);

    // Another weight is not another service.
    fake.set(Mode::Says(vec![
        instance("a").weight(7),
        instance("b"),
        instance("c"),
    ]));
    clock::sleep(secs(1)).await;
    assert_eq!(called().await, ["a", "b", "c"]);
    assert_eq!(made.load(Ordering::SeqCst), 3);

    fake.says(&["b", "c"]);
    clock::sleep(secs(1)).await;
    assert_eq!(called().await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_list_is_told_of_once() {
    use buttress::discovery::Watch;
    use futures_util::{FutureExt as _, StreamExt as _};
    use tower::discover::Change;

    let list = Watch::fixed("orders", [instance("a")]);
    let mut discover = list.discover(|instance| instance.id.clone());
    let Some(Ok(Change::Insert(key, service))) = discover.next().await else {
        panic!("nothing was told");
    };
    assert_eq!((key, service.as_str()), (instance("a").key(), "a"));
    assert!(discover.next().now_or_never().is_none());
}

// ---- registration ----

async fn named_by(memory: &Memory) -> Snapshot {
    let watch = Resolver::new(memory.clone()).watch("orders");
    Snapshot::clone(&*watch.changed(0).await)
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_registered_at_once_and_kept_by_its_heartbeats() {
    let memory = Memory::new();
    let start = clock::now();
    let _registered = Registration::new(memory.clone(), "orders", instance("a")).start();
    let watch = Resolver::new(memory.clone()).watch("orders");
    assert_eq!(ids(watch.resolved().await.unwrap().live()), ["a"]);
    assert_eq!(clock::now(), start);
    clock::sleep(secs(3600)).await;
    assert_eq!(ids(named_by(&memory).await.live()), ["a"]);
    assert_eq!(watch.snapshot().version(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_the_registry_forgot_is_registered_again() {
    let heard = Heard::default();
    let memory = Memory::new();
    let _registered = Registration::new(memory.clone(), "orders", instance("a"))
        .observe(heard.clone())
        .start();
    clock::sleep(secs(1)).await;
    memory.clear();
    clock::sleep(secs(10)).await;
    assert_eq!(ids(named_by(&memory).await.live()), ["a"]);
    assert_eq!(heard.take(), ["a registered", "a registered again"]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_registered_again_when_a_registry_returns_without_its_data() {
    let heard = Heard::default();
    let memory = Memory::new();
    memory.set_down(true);
    let _registered = Registration::new(memory.clone(), "orders", instance("a"))
        .observe(heard.clone())
        .start();
    clock::sleep(secs(100)).await;
    memory.set_down(false);
    clock::sleep(secs(10)).await;
    assert_eq!(ids(named_by(&memory).await.live()), ["a"]);

    memory.set_down(true);
    clock::sleep(secs(100)).await;
    memory.clear();
    memory.set_down(false);
    clock::sleep(secs(10)).await;
    assert_eq!(ids(named_by(&memory).await.live()), ["a"]);
    let mut heard = heard.take();
    heard.dedup();
    let expected = [
        "memory failed: it is down",
        "memory recovered",
        "a registered",
        "memory failed: it is down",
        "memory recovered",
        "a registered again",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn the_status_follows_the_health_function_and_its_panic_is_down() {
    let memory = Memory::new();
    let health = Arc::new(Mutex::new(Some(Status::Starting)));
    let asked = Arc::clone(&health);
    let _registered = Registration::new(memory.clone(), "orders", instance("a"))
        .health(move || asked.lock().unwrap().expect("a status"))
        .start();
    let watch = Resolver::new(memory.clone()).watch("orders");
    assert_eq!(watch.changed(0).await.instances().len(), 0);
    *health.lock().unwrap() = Some(Status::Up);
    clock::sleep(secs(10)).await;
    assert_eq!(watch.snapshot().live().len(), 1);
    *health.lock().unwrap() = None;
    clock::sleep(secs(10)).await;
    assert_eq!(watch.snapshot().live().len(), 0);
    assert_eq!(watch.snapshot().held().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_goes_out_of_service_before_it_is_taken_out() {
    let heard = Heard::default();
    let memory = Memory::new();
    let registered = Registration::new(memory.clone(), "orders", instance("a"))
        .ttl(secs(3))
        .observe(heard.clone())
        .start();
    let watch = Resolver::new(memory.clone()).watch("orders");
    watch.resolved().await.unwrap();
    let start = clock::now();
    let left = tokio::spawn(registered.deregister());
    assert_eq!(watch.changed(1).await.instances().len(), 0);
    assert_eq!(clock::now(), start);
    assert_eq!(
        watch.resolved().await.unwrap_err().reason(),
        Reason::NoInstance
    );

    left.await.unwrap().unwrap();
    assert_eq!(clock::now() - start, secs(5));
    assert_eq!(
        watch.resolved().await.unwrap_err().reason(),
        Reason::Unresolved
    );
    assert_eq!(heard.take(), ["a registered", "a deregistered"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_in_bounded_time_when_the_registry_hangs() {
    struct Hangs;
    impl Registry for Hangs {
        fn name(&self) -> &str {
            "hangs"
        }
        fn watch(&self, _: &str, _: Updates) -> BoxFuture<'static, RegistryError> {
            Box::pin(std::future::pending())
        }
        fn register(
            &self,
            _: &str,
            _: &Instance,
            _: Duration,
        ) -> BoxFuture<'static, Result<(), RegistryError>> {
            Box::pin(std::future::pending())
        }
        fn renew(
            &self,
            _: &str,
            _: &Instance,
            _: Status,
        ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
            Box::pin(std::future::pending())
        }
        fn deregister(
            &self,
            _: &str,
            _: &Instance,
        ) -> BoxFuture<'static, Result<(), RegistryError>> {
            Box::pin(std::future::pending())
        }
    }
    let registered = Registration::new(Hangs, "orders", instance("a")).start();
    clock::sleep(secs(1)).await;
    let start = clock::now();
    let error = registered.deregister().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(clock::now() - start, secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_takes_the_instance_out() {
    let memory = Memory::new();
    let registered = Registration::new(memory.clone(), "orders", instance("a")).start();
    clock::sleep(secs(1)).await;
    drop(registered);
    clock::sleep(Duration::from_millis(1)).await;
    assert_eq!(named_by(&memory).await.instances().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_could_not_be_taken_out_is_told_of_though_nobody_waits() {
    let heard = Heard::default();
    let memory = Memory::new();
    let registered = Registration::new(memory.clone(), "orders", instance("a"))
        .observe(heard.clone())
        .start();
    clock::sleep(secs(1)).await;
    memory.set_down(true);
    drop(registered);
    clock::sleep(Duration::from_millis(1)).await;
    assert_eq!(heard.take(), ["a registered", "memory failed: it is down"]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_forgets_at_once_is_told_no_more_often_than_others() {
    struct Forgets(Arc<AtomicUsize>);
    impl Registry for Forgets {
        fn name(&self) -> &str {
            "forgets"
        }
        fn watch(&self, _: &str, _: Updates) -> BoxFuture<'static, RegistryError> {
            Box::pin(std::future::pending())
        }
        fn register(
            &self,
            _: &str,
            _: &Instance,
            _: Duration,
        ) -> BoxFuture<'static, Result<(), RegistryError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(Ok(())))
        }
        fn renew(
            &self,
            _: &str,
            _: &Instance,
            _: Status,
        ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
            Box::pin(std::future::ready(Ok(Renewal::Unknown)))
        }
    }
    let times = Arc::new(AtomicUsize::new(0));
    let _registered =
        Registration::new(Forgets(Arc::clone(&times)), "orders", instance("a")).start();
    clock::sleep(secs(100)).await;
    let times = times.load(Ordering::SeqCst);
    assert!((10..=14).contains(&times), "{times}");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_instance_stays_until_its_lease_runs_out() {
    let memory = Memory::new();
    let registered = Registration::new(memory.clone(), "orders", instance("a")).start();
    clock::sleep(secs(1)).await;
    registered.abandon();
    clock::sleep(secs(28)).await;
    assert_eq!(named_by(&memory).await.live().len(), 1);
    clock::sleep(secs(2)).await;
    assert_eq!(named_by(&memory).await.live().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shared_registry_is_a_registry() {
    let registry: Arc<dyn Registry> = Arc::new(Memory::new());
    let _registered = Registration::new(Arc::clone(&registry), "orders", instance("a")).start();
    let watch = Resolver::new(registry).watch("orders");
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 1);
}

#[tokio::test]
#[should_panic(expected = "a ttl of zero")]
async fn a_ttl_of_zero_is_refused_where_it_is_written() {
    let _ = Registration::new(Memory::new(), "orders", instance("a")).ttl(Duration::ZERO);
}

// ---- a failure of which the watch itself tells ----

#[tokio::test(start_paused = true)]
async fn a_watch_can_tell_of_a_failure_and_go_on() {
    struct Told;
    impl Registry for Told {
        fn name(&self) -> &str {
            "told"
        }
        fn watch(&self, _: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
            Box::pin(async move {
                updates.instances(vec![instance("a")]).await;
                clock::sleep(secs(1)).await;
                let error = RegistryError::new("told", ErrorKind::Malformed, "no such field");
                updates.failed(error).await;
                clock::sleep(secs(1)).await;
                updates.send(Update::Confirmed).await;
                std::future::pending().await
            })
        }
    }
    let watch = Resolver::new(Told).watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(Duration::from_millis(1500)).await;
    assert!(matches!(watch.freshness(), Freshness::Stale { .. }));
    clock::sleep(secs(1)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn who_registers_can_ask_whether_it_worked() {
    let memory = Memory::new();
    memory.set_down(true);
    let instance = Instance::new("a", "10.0.0.1", 80);
    let registered = Registration::new(memory.clone(), "orders", instance).start();
    let error = registered.registered().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    memory.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(registered.registered().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_only_people_can_put_right_is_not_waited_for() {
    struct Denies;
    impl Registry for Denies {
        fn name(&self) -> &str {
            "denies"
        }

        fn watch(&self, _: &str, _: Updates) -> BoxFuture<'static, RegistryError> {
            Box::pin(async { RegistryError::new("denies", ErrorKind::Denied, "no token") })
        }
    }

    let begun = buttress::clock::now();
    let watch = Resolver::new(Denies).or(Memory::new()).watch("orders");
    let rejected = watch.resolved().await.unwrap_err();
    assert_eq!(buttress::clock::now(), begun);
    let said = std::error::Error::source(&rejected).unwrap().to_string();
    assert_eq!(said, "denies: no token; memory: knows no such service");
}
