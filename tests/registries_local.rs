//! The registries without a server: memory, in paused time, and file, with real folders.

#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{
    ErrorKind, Freshness, Instance, Registration, Registry, Renewal, Resolver, Status, Update,
    Updates, Watch,
};
use buttress::registries::file::File;
use buttress::registries::memory::Memory;
use tokio::sync::mpsc;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn instance(id: &str) -> Instance {
    Instance::new(id, "10.0.0.1", 8080)
}

/// A watch of `orders`, and what it says.
fn watch(registry: &impl Registry) -> mpsc::Receiver<Update> {
    let (updates, receiver) = Updates::channel();
    tokio::spawn(registry.watch("orders", updates));
    receiver
}

fn says(names: &[&str], authoritative: bool) -> impl Fn(Option<Update>) {
    let expected: Vec<_> = names.iter().map(|id| id.to_string()).collect();
    move |update| match update {
        Some(Update::Instances {
            instances,
            authoritative: on_purpose,
            ..
        }) => {
            let named: Vec<_> = instances.into_iter().map(|i| i.id).collect();
            assert_eq!((named, on_purpose), (expected.clone(), authoritative));
        }
        other => panic!("{other:?} instead of {expected:?}"),
    }
}

// ---- memory ----

#[tokio::test(start_paused = true)]
async fn a_lease_in_memory_runs_out_unless_it_is_renewed() {
    let memory = Memory::new();
    let a = instance("a");
    memory.register("orders", &a, secs(10)).await.unwrap();
    let mut updates = watch(&memory);
    says(&["a"], false)(updates.recv().await);

    clock::sleep(secs(9)).await;
    let renewed = memory.renew("orders", &a, Status::Up).await.unwrap();
    assert_eq!(renewed, Renewal::Renewed);
    let start = clock::now();
    assert_eq!(updates.recv().await, Some(Update::Confirmed));
    says(&[], false)(updates.recv().await);
    assert_eq!(clock::now() - start, secs(10));
    let renewed = memory.renew("orders", &a, Status::Up).await.unwrap();
    assert_eq!(renewed, Renewal::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_memory_tells_what_left_from_what_was_lost() {
    let memory = Memory::new();
    for id in ["a", "b", "c"] {
        let ttl = if id == "c" { secs(10) } else { Duration::MAX };
        memory.register("orders", &instance(id), ttl).await.unwrap();
    }
    let mut updates = watch(&memory);
    says(&["a", "b", "c"], false)(updates.recv().await);
    memory.deregister("orders", &instance("a")).await.unwrap();
    says(&["b", "c"], true)(updates.recv().await);
    says(&["b"], false)(updates.recv().await);
    memory.clear();
    says(&[], false)(updates.recv().await);
    memory
        .register("orders", &instance("b"), secs(9))
        .await
        .unwrap();
    says(&["b"], false)(updates.recv().await);
}

#[tokio::test(start_paused = true)]
async fn a_status_told_with_a_heartbeat_reaches_the_watch() {
    let memory = Memory::new();
    let a = instance("a");
    memory.register("orders", &a, secs(10)).await.unwrap();
    let mut updates = watch(&memory);
    says(&["a"], false)(updates.recv().await);
    memory
        .renew("orders", &a, Status::OutOfService)
        .await
        .unwrap();
    let told = updates.recv().await;
    let Some(Update::Instances { instances, .. }) = told else {
        panic!("{told:?}")
    };
    assert_eq!(instances[0].status, Status::OutOfService);
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_down_answers_nothing_and_ends_its_watches() {
    let memory = Memory::new();
    let a = instance("a");
    memory.register("orders", &a, secs(10)).await.unwrap();
    let (updates, mut receiver) = Updates::channel();
    let ended = tokio::spawn(memory.watch("orders", updates));
    says(&["a"], false)(receiver.recv().await);
    memory.set_down(true);
    assert_eq!(receiver.recv().await, Some(Update::Confirmed));
    assert_eq!(ended.await.unwrap().kind(), ErrorKind::Unreachable);
    assert!(memory.register("orders", &a, secs(10)).await.is_err());
    assert!(memory.renew("orders", &a, Status::Up).await.is_err());
    assert!(memory.deregister("orders", &a).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn churn_of_another_service_changes_nothing() {
    let memory = Memory::new();
    memory
        .register("orders", &instance("a"), Duration::MAX)
        .await
        .unwrap();
    let watch = Resolver::new(memory.clone()).watch("orders");
    watch.resolved().await.unwrap();
    for id in ["x", "y", "z"] {
        memory
            .register("stock", &instance(id), secs(1))
            .await
            .unwrap();
        clock::sleep(secs(1)).await;
    }
    assert_eq!(watch.snapshot().version(), 1);
}

// ---- file ----

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("buttress-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file as an editor does that replaces it.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("draft"), text).unwrap();
        fs::rename(self.path("draft"), self.path(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn toml(ports: &[u16]) -> String {
    ports
        .iter()
        .map(|port| format!("[[instances.orders]]\nhost = '10.0.0.1'\nport = {port}\n"))
        .collect()
}

async fn ports(watch: &Watch, wanted: &[u16]) {
    let mut snapshot = watch.snapshot();
    loop {
        let ports: Vec<_> = snapshot.instances().iter().map(|i| i.port).collect();
        if ports == wanted {
            return;
        }
        let changed = tokio::time::timeout(secs(10), watch.changed(snapshot.version()));
        snapshot = changed
            .await
            .unwrap_or_else(|_| panic!("{ports:?} instead of {wanted:?}"));
    }
}

async fn failed(updates: &mut mpsc::Receiver<Update>) -> String {
    loop {
        match updates.recv().await {
            Some(Update::Failed(error)) => return format!("{error}: {}", error.message()),
            Some(Update::Confirmed) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_file_is_read_and_followed_when_it_is_replaced_or_written_in_place() {
    let folder = Folder::new();
    folder.replace("instances.toml", &toml(&[1, 2, 3, 4]));
    let watch = Resolver::new(File::new(folder.path("instances.toml"))).watch("orders");
    ports(&watch, &[1, 2, 3, 4]).await;
    // The operator's word: not doubted, however many go.
    folder.replace("instances.toml", &toml(&[4]));
    ports(&watch, &[4]).await;
    fs::write(folder.path("instances.toml"), toml(&[4, 5])).unwrap();
    ports(&watch, &[4, 5]).await;
    folder.replace("instances.toml", &toml(&[6]));
    ports(&watch, &[6]).await;
}

#[tokio::test]
async fn a_json_file_says_the_same() {
    let folder = Folder::new();
    let path = folder.path("instances.json");
    let text = r#"{"instances": {"orders": [{"host": "10.0.0.1", "port": 80, "zone": "z"}]}}"#;
    fs::write(&path, text).unwrap();
    let watch = Resolver::new(File::new(path)).watch("orders");
    let resolved = watch.resolved().await.unwrap();
    let expected = Instance::new("10.0.0.1:80", "10.0.0.1", 80).zone("z");
    assert_eq!(*resolved.instances()[0], expected);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_behind_a_link_that_is_swapped_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    for (version, port) in [("one", 1), ("two", 2)] {
        fs::create_dir(folder.path(version)).unwrap();
        let path = folder.path(version).join("instances.toml");
        fs::write(path, toml(&[port])).unwrap();
    }
    symlink("one", folder.path("data")).unwrap();
    symlink("data/instances.toml", folder.path("instances.toml")).unwrap();
    let watch = Resolver::new(File::new(folder.path("instances.toml"))).watch("orders");
    ports(&watch, &[1]).await;
    symlink("two", folder.path("next")).unwrap();
    fs::rename(folder.path("next"), folder.path("data")).unwrap();
    ports(&watch, &[2]).await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_set_and_says_what_is_wrong() {
    let folder = Folder::new();
    folder.replace("instances.toml", &toml(&[1]));
    let file = File::new(folder.path("instances.toml"));
    let watched = Resolver::new(file.clone()).watch("orders");
    ports(&watched, &[1]).await;
    let mut updates = watch(&file);
    says(&["10.0.0.1:1"], true)(updates.recv().await);

    folder.replace(
        "instances.toml",
        "[[instances.orders]]\nhost='h'\nport=70000",
    );
    let error = failed(&mut updates).await;
    let expected = "instances.orders[0].port = 70000: must be a whole number from 1 to 65535";
    assert!(
        error.contains("instances.toml: ") && error.contains(expected),
        "{error}"
    );
    assert_eq!(watched.snapshot().instances().len(), 1);

    folder.replace("instances.toml", &toml(&[2]));
    says(&["10.0.0.1:2"], true)(updates.recv().await);
    ports(&watched, &[2]).await;
    assert_eq!(watched.freshness(), Freshness::Fresh);
}

#[tokio::test]
async fn a_missing_file_is_an_error_and_not_an_empty_set() {
    let folder = Folder::new();
    let file = File::new(folder.path("instances.toml"));
    let mut updates = watch(&file);
    let error = failed(&mut updates).await;
    assert!(error.contains("cannot be read"), "{error}");

    folder.replace("instances.toml", &toml(&[1]));
    says(&["10.0.0.1:1"], true)(updates.recv().await);
    fs::remove_file(folder.path("instances.toml")).unwrap();
    failed(&mut updates).await;
}

#[tokio::test]
async fn a_folder_that_is_removed_and_made_again_is_followed() {
    let folder = Folder::new();
    folder.replace("instances.toml", &toml(&[1]));
    let watch = Resolver::new(File::new(folder.path("instances.toml"))).watch("orders");
    ports(&watch, &[1]).await;
    fs::remove_dir_all(&folder.0).unwrap();
    let noticed = async {
        while watch.freshness() == Freshness::Fresh {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(secs(10), noticed).await.unwrap();
    assert_eq!(watch.snapshot().instances().len(), 1);
    fs::create_dir_all(&folder.0).unwrap();
    folder.replace("instances.toml", &toml(&[2]));
    ports(&watch, &[2]).await;
}

#[tokio::test]
async fn a_missing_folder_and_a_strange_ending_are_errors() {
    let folder = Folder::new();
    let file = File::new(folder.path("nowhere/instances.toml"));
    let (updates, _receiver) = Updates::channel();
    let error = file.watch("orders", updates).await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    fs::write(folder.path("instances.yaml"), "").unwrap();
    let file = File::new(folder.path("instances.yaml"));
    let error = failed(&mut watch(&file)).await;
    assert!(error.contains("neither in .toml nor in .json"), "{error}");
}

#[tokio::test]
async fn an_unknown_service_in_a_file_is_refused_with_the_name_of_the_file() {
    use std::error::Error as _;
    let folder = Folder::new();
    folder.replace("instances.toml", &toml(&[1]));
    let path = folder.path("instances.toml");
    let watch = Resolver::new(File::new(&path)).watch("stock");
    let rejected = watch.resolved().await.unwrap_err();
    let expected = format!("file {}: knows no such service", path.display());
    assert_eq!(rejected.source().unwrap().to_string(), expected);
}

#[tokio::test]
async fn instances_find_one_another_through_a_file_that_does_not_exist_yet() {
    for name in ["instances.toml", "instances.json"] {
        let folder = Folder::new();
        let file = File::new(folder.path(name));
        let registered = Registration::new(file.clone(), "orders", instance("a"))
            .drain(Duration::from_millis(300))
            .start();
        let watch = Resolver::new(file.clone())
            .first_answer(secs(10))
            .watch("orders");
        assert_eq!(watch.resolved().await.unwrap().instances()[0].id, "a");

        let a = instance("a");
        let renewed = file.renew("orders", &a, Status::Up).await.unwrap();
        assert_eq!(renewed, Renewal::Renewed);
        registered.deregister().await.unwrap();
        let renewed = file.renew("orders", &a, Status::Up).await.unwrap();
        assert_eq!(renewed, Renewal::Unknown);
        ports(&watch, &[]).await;
    }
}

#[tokio::test]
async fn none_of_many_that_register_in_a_file_at_once_is_lost() {
    let folder = Folder::new();
    let path = folder.path("instances.toml");
    let tasks: Vec<_> = (0..20)
        .map(|id| {
            // Each with a registry of its own, as so many processes have.
            let file = File::new(&path);
            tokio::spawn(async move {
                let instance = instance(&format!("{id:02}"));
                file.register("orders", &instance, secs(30)).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let watch = Resolver::new(Arc::new(File::new(&path))).watch("orders");
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 20);
}

#[tokio::test]
async fn the_case_of_a_services_name_in_a_file_does_not_matter() {
    let folder = Folder::new();
    let path = folder.path("instances.toml");
    folder.replace("instances.toml", &toml(&[1]).replace("orders", "Orders"));
    let file = File::new(&path);
    let watch = Resolver::new(file.clone()).watch("orders");
    ports(&watch, &[1]).await;
    file.register("ORDERS", &instance("b"), secs(30))
        .await
        .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("ORDERS"), "{text}");
    let renewed = file.renew("orders", &instance("b"), Status::Up).await;
    assert_eq!(renewed, Ok(Renewal::Renewed));
    file.deregister("orders", &instance("b")).await.unwrap();
    ports(&watch, &[1]).await;
}

#[test]
fn a_lock_that_another_process_keeps_holds_up_one_thread_alone() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = Folder::new();
        let file = File::new(folder.path("instances.toml"));
        let a = instance("a");
        file.register("orders", &a, secs(30)).await.unwrap();
        let lock = fs::File::open(folder.path(".instances.toml.lock")).unwrap();
        #[allow(clippy::incompatible_msrv)] // As in the registry.
        lock.lock().unwrap();
        for _ in 0..5 {
            let renewal = file.renew("orders", &a, Status::Up);
            let limited = tokio::time::timeout(Duration::from_millis(10), renewal);
            limited.await.unwrap_err();
        }
        let other = tokio::time::timeout(secs(5), tokio::task::spawn_blocking(|| ())).await;
        drop(lock);
        other.expect("a thread is free").unwrap();
        let renewed = file.renew("orders", &a, Status::Up).await;
        assert_eq!(renewed, Ok(Renewal::Renewed));
    });
}

#[tokio::test]
async fn registering_never_overwrites_a_file_with_a_mistake() {
    let folder = Folder::new();
    let path = folder.path("instances.toml");
    fs::write(&path, "[[instances.orders]]\nprot = 80").unwrap();
    let file = File::new(&path);
    let error = file
        .register("orders", &instance("a"), secs(30))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(fs::read_to_string(&path).unwrap().contains("prot"));
}

#[tokio::test]
async fn a_file_that_instances_lost_is_no_reason_to_call_nobody() {
    let folder = Folder::new();
    let file = File::new(folder.path("instances.toml"));
    let instances: Vec<_> = (1..=4)
        .map(|port| Instance::new(format!("orders-{port}"), "10.0.0.1", port))
        .collect();
    for instance in &instances {
        file.register("orders", instance, secs(3)).await.unwrap();
    }
    let watch = Resolver::new(file.clone()).watch("orders");
    ports(&watch, &[1, 2, 3, 4]).await;

    // Gone: a registry that is down. A heartbeat does not make a file of one instance.
    fs::remove_file(folder.path("instances.toml")).unwrap();
    let renewed = file.renew("orders", &instances[0], Status::Up).await;
    assert_eq!(renewed.unwrap_err().kind(), ErrorKind::Unreachable);
    // Empty: a registry that forgot. The first to register again is not all there is.
    folder.replace("instances.toml", "[instances]\n");
    let renewed = file.renew("orders", &instances[0], Status::Up).await;
    assert_eq!(renewed, Ok(Renewal::Unknown));
    let seen = watch.changed(watch.snapshot().version()).await;
    assert_eq!(seen.held().len(), 4);
    file.register("orders", &instances[0], secs(3))
        .await
        .unwrap();
    let seen = watch.changed(seen.version()).await;
    assert_eq!((seen.live().len(), seen.held().len()), (1, 3));
}
