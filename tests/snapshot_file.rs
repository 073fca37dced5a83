//! What a resolver knows outlives its process: the snapshot on disk, through the public API, in paused time.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{
    BoxFuture, ErrorKind, Freshness, Instance, Registry, RegistryError, Resolver, SnapshotFile,
    Update, Updates,
};
use buttress::observe::{Event, Observe};
use buttress::registries::memory::Memory;
use tempfile::TempDir;
use tokio::sync::watch;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn instance(id: &str) -> Instance {
    Instance::new(id, "10.0.0.1", 8080)
}

fn ids(instances: &[Arc<Instance>]) -> Vec<&str> {
    instances.iter().map(|i| i.id.as_str()).collect()
}

/// Says of every service what it is told to say; without anything, it cannot be reached.
#[derive(Clone)]
struct Says(Arc<watch::Sender<Option<Update>>>);

impl Says {
    fn instances(names: &[&str]) -> Self {
        Self(Arc::new(watch::Sender::new(Some(named(names)))))
    }

    fn nothing() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    fn say(&self, update: Option<Update>) {
        self.0.send_replace(update);
    }
}

fn named(names: &[&str]) -> Update {
    let instances = names.iter().map(|id| instance(id)).collect();
    all(instances)
}

fn all(instances: Vec<Instance>) -> Update {
    Update::Instances {
        instances,
        authoritative: false,
    }
}

impl Registry for Says {
    fn name(&self) -> &str {
        "registry at http://10.9.8.7:8500"
    }

    fn watch(&self, _: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let says = Arc::clone(&self.0);
        Box::pin(async move {
            let mut heard = says.subscribe();
            loop {
                let update = heard.borrow_and_update().clone();
                let Some(update) = update else {
                    let kind = ErrorKind::Unreachable;
                    return RegistryError::new("registry", kind, "cannot connect");
                };
                updates.send(update).await;
                let _ = heard.changed().await;
            }
        })
    }
}

/// Keeps what it hears of the file, as text.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        let text = match event {
            Event::SnapshotLoaded {
                services,
                instances,
                ..
            } => format!("loaded {instances} of {services}"),
            Event::SnapshotRefused { file, error } => format!("refused {file}: {error}"),
            Event::SnapshotNotWritten { file, error } => format!("not written {file}: {error}"),
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

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("instances.snapshot")
    }

    fn file(&self) -> SnapshotFile {
        SnapshotFile::new(self.path())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// A process that lives for a minute and knows `names` of `service`.
async fn earlier(file: SnapshotFile, service: &str, names: &[&str]) {
    let resolver = Resolver::new(Says::instances(names)).snapshot_file(file);
    let watch = resolver.watch(service);
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
}

async fn written(folder: &Folder) {
    earlier(folder.file(), "orders", &["a", "b", "c", "d", "e"]).await;
}

// ---- the start ----

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_while_every_registry_is_down_serves_from_the_snapshot() {
    let folder = Folder::new();
    let first = Instance::new("orders-1", "::1", 8443)
        .secure(true)
        .zone("a")
        .weight(7)
        .metadata("version", "1.4\tbeta\n");
    let says = Says::nothing();
    says.say(Some(all(vec![first.clone(), instance("orders-2")])));
    let resolver = Resolver::new(says.clone()).snapshot_file(folder.file());
    let watch = resolver.watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    drop((watch, resolver));

    says.say(None);
    let heard = Heard::default();
    let watch = Resolver::new(says)
        .or(Says::nothing())
        .snapshot_file(folder.file())
        .observe(heard.clone())
        .watch("orders");
    let begun = clock::now();
    let snapshot = watch.resolved().await.unwrap();
    assert_eq!(clock::now(), begun, "no timer is in the way");
    assert_eq!(*snapshot.instances()[0], first);
    assert_eq!(watch.freshness(), Freshness::Bootstrap);
    assert_eq!(heard.take(), ["loaded 2 of 1"]);

    clock::sleep(secs(86_400)).await;
    assert_eq!(watch.snapshot().version(), snapshot.version());
    assert_eq!(watch.freshness(), Freshness::Bootstrap);
}

/// Twenty instances of whatever service, or an outage.
struct Large(bool);

impl Registry for Large {
    fn name(&self) -> &str {
        "large"
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let one = |n| instance(&format!("{service}-{n}")).metadata("version", "1");
        let instances = (0..20).map(one).collect();
        let is_up = self.0;
        Box::pin(async move {
            if !is_up {
                return RegistryError::new("large", ErrorKind::Unreachable, "cannot connect");
            }
            updates.instances(instances).await;
            std::future::pending().await
        })
    }
}

fn runtime(start_paused: bool) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let builder = builder.enable_time().start_paused(start_paused);
    builder.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_large_snapshot_is_at_hand_before_any_timer() {
    let folder = Folder::new();
    let resolver = Resolver::new(Large(true)).snapshot_file(folder.file());
    let watch = |n| resolver.watch(format!("service-{n}"));
    let watches: Vec<_> = (0..500).map(watch).collect();
    clock::sleep(secs(60)).await;
    drop((watches, resolver));

    let begun = clock::now();
    let resolver = Resolver::new(Large(false)).snapshot_file(folder.file());
    for n in 0..500 {
        let watch = resolver.watch(format!("service-{n}"));
        assert_eq!(watch.resolved().await.unwrap().instances().len(), 20);
    }
    assert_eq!(clock::now(), begun);
}

#[tokio::test(start_paused = true)]
async fn without_a_file_the_start_is_as_ever() {
    let folder = Folder::new();
    let heard = Heard::default();
    let resolver = Resolver::new(Says::instances(&["a"])).snapshot_file(folder.file());
    let watch = resolver.observe(heard.clone()).watch("orders");
    assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["a"]);
    assert_eq!(watch.freshness(), Freshness::Fresh);
    assert!(heard.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_says_replaces_the_snapshot() {
    let folder = Folder::new();
    written(&folder).await;
    let says = Says::instances(&["a", "b", "c", "d", "f"]);
    let watch = Resolver::new(says)
        .snapshot_file(folder.file())
        .watch("orders");
    let snapshot = watch.resolved().await.unwrap();
    // It may come at once, or right after what was on disk.
    let snapshot = match snapshot.version() {
        1 => watch.changed(1).await,
        _ => snapshot,
    };
    assert_eq!(ids(snapshot.instances()), ["a", "b", "c", "d", "f"]);
    assert_eq!(watch.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn the_partial_first_answer_of_a_restarted_registry_does_not_empty_it() {
    let folder = Folder::new();
    written(&folder).await;
    for (names, live) in [(&["d"][..], &["d"][..]), (&[], &[])] {
        let says = Says::instances(names);
        let resolver = Resolver::new(says.clone()).snapshot_file(folder.file());
        let watch = resolver.watch("orders");
        clock::sleep(secs(1)).await;
        let snapshot = watch.snapshot();
        assert_eq!(ids(snapshot.live()), live);
        assert_eq!(snapshot.instances().len(), 5);

        says.say(Some(named(&["a", "b", "c", "d", "e"])));
        clock::sleep(secs(1)).await;
        assert_eq!(watch.snapshot().live().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_true_scale_to_zero_wins_over_the_snapshot_and_is_remembered() {
    let folder = Folder::new();
    written(&folder).await;
    let resolver = Resolver::new(Says::instances(&[])).snapshot_file(folder.file());
    let watch = resolver.watch("orders");
    clock::sleep(secs(61)).await;
    assert_eq!(watch.snapshot().instances().len(), 0);
    let authoritative = false;
    assert_eq!(watch.freshness(), Freshness::Empty { authoritative });
    clock::sleep(secs(60)).await;
    let text = fs::read_to_string(folder.path()).unwrap();
    assert!(!text.contains("orders"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn it_stands_for_the_registry_that_named_the_instances() {
    let folder = Folder::new();
    let says = Says::instances(&["a"]);
    let resolver = Resolver::new(Memory::new()).or(says.clone());
    let resolver = resolver.snapshot_file(folder.file());
    let watch = resolver.watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    drop((watch, resolver));

    // The first registry still knows nothing, and that the second is down changes nothing.
    says.say(None);
    let resolver = Resolver::new(Memory::new()).or(says.clone());
    let watch = resolver.snapshot_file(folder.file()).watch("orders");
    clock::sleep(secs(3600)).await;
    assert_eq!(ids(watch.snapshot().instances()), ["a"]);

    // What the first names is preferred, and does not come back to the snapshot when it goes.
    let first = Says::instances(&["b"]);
    let resolver = Resolver::new(first.clone()).or(says);
    let watch = resolver.snapshot_file(folder.file()).watch("orders");
    clock::sleep(secs(10)).await;
    assert_eq!(ids(watch.snapshot().instances()), ["b"]);
    first.say(Some(named(&[])));
    clock::sleep(secs(120)).await;
    assert_eq!(watch.snapshot().instances().len(), 0);
}

// ---- age ----

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_too_old_is_not_used() {
    let folder = Folder::new();
    written(&folder).await;
    // Two hours pass in the file instead of on the calendar.
    age(&folder.path(), 7200);
    for (limit, found) in [(3600, false), (10_000, true)] {
        let resolver = || Resolver::new(Says::nothing()).first_answer(secs(1));
        let by_age = resolver().snapshot_file(folder.file().max_age(secs(limit)));
        let watch = by_age.watch("orders");
        assert_eq!(watch.resolved().await.is_ok(), found, "{limit}");
        let by_staleness = resolver()
            .max_stale(secs(limit))
            .snapshot_file(folder.file());
        let watch = by_staleness.watch("orders");
        assert_eq!(watch.resolved().await.is_ok(), found, "{limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_becomes_too_old_is_used_no_longer() {
    let folder = Folder::new();
    written(&folder).await;
    age(&folder.path(), 600);
    let resolver = Resolver::new(Says::nothing()).max_stale(secs(1000));
    let watch = resolver.snapshot_file(folder.file()).watch("orders");
    clock::sleep(secs(390)).await;
    assert_eq!(watch.snapshot().instances().len(), 5);
    clock::sleep(secs(11)).await;
    assert_eq!(watch.snapshot().instances().len(), 0);
    watch.resolved().await.unwrap_err();
}

/// Makes what is in the file older.
fn age(path: &Path, by: u64) {
    let text = fs::read_to_string(path).unwrap();
    let (_, body) = text.split_once('\n').unwrap();
    let line = body.lines().find(|it| it.starts_with("service")).unwrap();
    let confirmed = line.rsplit('\t').next().unwrap();
    let older = (confirmed.parse::<u64>().unwrap() - by).to_string();
    let body = body.replace(confirmed, &older);
    let crc = crc32(body.as_bytes());
    let header = format!("buttress-snapshot 1 {crc:08x} {}\n", body.len());
    fs::write(path, header + &body).unwrap();
}

/// Bit by bit, as the definition has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    !crc
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_changes_does_not_grow_old_on_disk() {
    let folder = Folder::new();
    let says = Says::instances(&["a"]);
    let watch = Resolver::new(says.clone())
        .snapshot_file(folder.file())
        .watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    fs::remove_file(folder.path()).unwrap();
    clock::sleep(secs(3000)).await;
    assert!(!folder.path().exists());
    clock::sleep(secs(600)).await;
    says.say(Some(named(&["a"])));
    clock::sleep(secs(60)).await;
    assert!(folder.path().exists());
    drop(watch);
}

// ---- files that cannot be used ----

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_used_is_refused_told_of_and_set_aside_and_the_start_goes_on() {
    type Spoil = fn(&Path);
    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    let cut: Spoil = |path| edit(path, |bytes| bytes.truncate(bytes.len() - 9));
    let changed: Spoil = |path| edit(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let version: Spoil = |path| edit(path, |bytes| bytes[18] = b'9');
    let foreign: Spoil = |path| fs::write(path, "[instances]\n").unwrap();
    let empty: Spoil = |path| fs::write(path, "").unwrap();
    let owner: Spoil = |path| {
        let text = fs::read_to_string(path).unwrap();
        let (_, body) = text.split_once('\n').unwrap();
        let body = body.replace("owner\t\n", "owner\tstaging\n");
        let crc = crc32(body.as_bytes());
        let header = format!("buttress-snapshot 1 {crc:08x} {}\n", body.len());
        fs::write(path, header + &body).unwrap();
    };
    let open: Spoil = |path| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    };
    let table = [
        (cut, "corrupt", "bytes after the header, found"),
        (changed, "corrupt", "expected the checksum"),
        (version, "rejected", "expected version 1, found \"9\""),
        (
            foreign,
            "corrupt",
            "found a file that begins \"[instances]\\n\"",
        ),
        (empty, "corrupt", "found a file that begins \"\""),
        (
            owner,
            "rejected",
            "expected the owner \"\", found \"staging\"",
        ),
        (open, "rejected", "can write, found mode 0666"),
    ];
    for (spoil, extension, expected) in table {
        let folder = Folder::new();
        written(&folder).await;
        spoil(&folder.path());

        let heard = Heard::default();
        let resolver = Resolver::new(Says::instances(&["z"])).snapshot_file(folder.file());
        let watch = resolver.observe(heard.clone()).watch("orders");
        let begun = clock::now();
        assert_eq!(ids(watch.resolved().await.unwrap().instances()), ["z"]);
        assert_eq!(clock::now(), begun);
        let told = heard.take().remove(0);
        assert!(
            told.contains(&format!("{}: ", folder.path().display())),
            "{told}"
        );
        assert!(told.contains(expected), "{told}");
        let aside = format!("instances.snapshot.{extension}");
        assert!(told.ends_with(&aside), "{told}");
        assert_eq!(folder.names(), [aside.as_str()]);

        // It is written anew, and what was set aside stays.
        clock::sleep(secs(60)).await;
        assert_eq!(folder.names(), ["instances.snapshot", &aside]);
        assert!(heard.take().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_file_is_refused_without_waiting_for_it() {
    let folder = Folder::new();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let heard = Heard::default();
    let resolver = Resolver::new(Says::instances(&["a"])).snapshot_file(folder.file());
    let watch = resolver.observe(heard.clone()).watch("orders");
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 1);
    assert!(heard.take()[0].contains("expected a file, found"));
}

#[tokio::test(start_paused = true)]
async fn another_owners_snapshot_is_refused_and_ones_own_is_used() {
    let folder = Folder::new();
    earlier(folder.file().owner("trips in test"), "orders", &["a"]).await;
    for (owner, found) in [("trips in test", true), ("trips in production", false)] {
        let resolver = Resolver::new(Says::nothing()).first_answer(secs(1));
        let watch = resolver
            .snapshot_file(folder.file().owner(owner))
            .watch("orders");
        assert_eq!(watch.resolved().await.is_ok(), found, "{owner}");
    }
}

// ---- writing ----

#[tokio::test(start_paused = true)]
async fn it_is_written_once_for_the_changes_of_half_a_minute() {
    let folder = Folder::new();
    let says = Says::instances(&["a"]);
    let watch = Resolver::new(says.clone())
        .snapshot_file(folder.file())
        .watch("orders");
    for n in 0..230 {
        says.say(Some(named(&["a", &n.to_string()])));
        clock::sleep(Duration::from_millis(100)).await;
    }
    assert!(folder.names().is_empty());
    clock::sleep(secs(8)).await;
    let text = fs::read_to_string(folder.path()).unwrap();
    assert!(text.contains("\t229\t"), "{text}");
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn only_its_user_can_read_it_and_it_holds_no_secret_and_no_registry() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let says = Says::nothing();
    let secret = instance("a")
        .metadata("acl-token", "t0ken")
        .metadata("backend", "http://user:pa55w0rd@db/")
        .metadata("version", "7");
    says.say(Some(all(vec![secret])));
    let watch = Resolver::new(says.clone())
        .snapshot_file(folder.file())
        .watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(folder.path()).unwrap();
    assert!(text.contains("version\t7"), "{text}");
    for secret in ["t0ken", "pa55w0rd", "10.9.8.7", "8500"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(folder.names(), ["instances.snapshot"]);
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn services_that_were_not_asked_for_since_the_start_stay_in_it() {
    let folder = Folder::new();
    earlier(folder.file(), "orders", &["a"]).await;
    earlier(folder.file(), "stock", &["b"]).await;
    let resolver = Resolver::new(Says::nothing()).snapshot_file(folder.file());
    for (service, id) in [("orders", "a"), ("stock", "b")] {
        let watch = resolver.watch(service);
        assert_eq!(ids(watch.resolved().await.unwrap().instances()), [id]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_nothing_out_of_it() {
    let folder = Folder::new();
    let says = Says::instances(&["a"]);
    let resolver = Resolver::new(says.clone()).max_stale(secs(100));
    let watch = resolver.snapshot_file(folder.file()).watch("orders");
    watch.resolved().await.unwrap();
    clock::sleep(secs(60)).await;
    says.say(None);
    clock::sleep(secs(3600)).await;
    assert_eq!(watch.snapshot().instances().len(), 0, "too old to be used");
    assert!(
        fs::read_to_string(folder.path())
            .unwrap()
            .contains("orders")
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_told_of_and_tried_again_and_disturbs_no_call() {
    let folder = Folder::new();
    let missing = folder.0.path().join("missing");
    let file = SnapshotFile::new(missing.join("instances.snapshot"));
    let heard = Heard::default();
    let resolver = Resolver::new(Says::instances(&["a"])).snapshot_file(file);
    let watch = resolver.observe(heard.clone()).watch("orders");
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 1);
    clock::sleep(secs(100)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
    let told = heard.take();
    assert!((3..=4).contains(&told.len()), "{told:?}");
    assert!(
        told[0].contains("missing/instances.snapshot: No such file"),
        "{told:?}"
    );

    fs::create_dir(&missing).unwrap();
    clock::sleep(secs(31)).await;
    assert!(missing.join("instances.snapshot").exists());
    assert!(heard.take().is_empty());
}

#[test]
fn it_is_written_by_a_later_runtime_when_that_of_the_first_watch_has_ended() {
    let folder = Folder::new();
    let says = Says::instances(&["a"]);
    let resolver = Resolver::new(says.clone()).snapshot_file(folder.file());
    runtime(true).block_on(async { resolver.watch("orders").resolved().await.unwrap() });
    assert!(folder.names().is_empty());
    runtime(true).block_on(async {
        says.say(Some(named(&["b"])));
        let _watch = resolver.watch("orders");
        clock::sleep(secs(61)).await;
    });
    assert!(fs::read_to_string(folder.path()).unwrap().contains("\tb\t"));
}
