//! Tokens and passwords show up in no `Debug`, no error and no log.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;
mod wire;

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{Instance, Registry, RegistryError, Resolver, SnapshotFile, Status};
use buttress::observe::MetricsObserver;
use buttress::registries::consul::Consul;
use buttress::registries::dns::Dns;
use buttress::registries::etcd::Etcd;
use buttress::registries::eureka::Eureka;
use buttress::registries::kubernetes::Kubernetes;
use buttress::registries::memory::Memory;
use buttress::registries::zookeeper::ZooKeeper;
use metrics_util::debugging::DebuggingRecorder;
use tracing_subscriber::filter::LevelFilter;
use watching::Watching;
use wire::{Reply, Server};

const TOKEN: &str = "t0ken-0f-c0nsul";
/// As it is in the URL, and as it is meant.
const PASSWORD: [&str; 2] = ["pa55%2Fw0rd", "pa55/w0rd"];
const USER: &str = "us3rname";
/// Of `us3rname:pa55/w0rd`.
const BASIC: &str = "dXMzcm5hbWU6cGE1NS93MHJk";

/// Everything that is logged, at every level, by whatever crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn assert_clean(text: &str, whence: &str) {
    for secret in [TOKEN, USER, BASIC].iter().chain(&PASSWORD) {
        assert!(!text.contains(secret), "{secret} in {whence}: {text}");
    }
}

fn assert_error_is_clean(error: &RegistryError) {
    assert_clean(&format!("{error:?}"), "the error's Debug");
    assert_clean(&format!("{error:#?}"), "the error's Debug");
    assert_clean(&error.message(), "the error's message");
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        assert_clean(&format!("{error} {error:?}"), "the chain of sources");
        next = error.source();
    }
}

/// Those over HTTP.
fn registries(address: &str) -> [Arc<dyn Registry>; 4] {
    let url = format!("http://{USER}:{}@{address}/base", PASSWORD[0]);
    let consul = Consul::new(&url).unwrap().token(TOKEN);
    let eureka = Eureka::new(&url).unwrap().poll(Duration::from_millis(100));
    let etcd = Etcd::new(&format!("http://{address}"))
        .unwrap()
        .user("anybody", PASSWORD[1]);
    let kubernetes = Kubernetes::new(&format!("http://{address}")).unwrap();
    let kubernetes = kubernetes.token(TOKEN);
    for text in [
        format!("{consul:?} {consul:#?}"),
        format!("{etcd:?} {etcd:#?}"),
        format!("{eureka:?} {eureka:#?}"),
        format!("{kubernetes:?} {kubernetes:#?}"),
    ] {
        assert!(text.contains(address), "{text}");
        assert_clean(&text, "the registry's Debug");
    }
    [
        Arc::new(consul),
        Arc::new(eureka),
        Arc::new(etcd),
        Arc::new(kubernetes),
    ]
}

fn zookeeper(address: &str) -> Arc<dyn Registry> {
    let zookeeper = ZooKeeper::new(address).unwrap();
    let zookeeper = zookeeper.user(USER, PASSWORD[1]);
    let text = format!("{zookeeper:?} {zookeeper:#?}");
    assert!(text.contains(address), "{text}");
    assert_clean(&text, "the registry's Debug");
    Arc::new(zookeeper)
}

/// Of them all, where nobody is. DNS has no secret.
fn nobody() -> Vec<Arc<dyn Registry>> {
    let address = "127.0.0.1:1";
    let dns = Dns::addresses("{}.test", 80).unwrap();
    let mut all: Vec<_> = registries(address).into();
    all.push(zookeeper(address));
    all.push(Arc::new(dns.servers([address.parse().unwrap()])));
    all
}

/// Does all that a registry can do, and looks at each error.
async fn use_all(registry: &Arc<dyn Registry>) {
    assert_clean(registry.name(), "the name");
    let instance = Instance::new("a", "10.0.0.1", 80);
    let (sender, mut updates) = buttress::discovery::Updates::channel();
    let watch = tokio::spawn(registry.watch("orders", sender));
    while let Some(update) = updates.recv().await {
        assert_clean(&format!("{update:?}"), "an update");
    }
    assert_error_is_clean(&watch.await.unwrap());
    let results = [
        registry
            .register("orders", &instance, Duration::from_secs(9))
            .await,
        registry
            .renew("orders", &instance, Status::Down)
            .await
            .map(|_| ()),
        registry.deregister("orders", &instance).await,
    ];
    for error in results.into_iter().filter_map(Result::err) {
        assert_error_is_clean(&error);
    }
}

/// Answers as a careless server or proxy might: with all that it was told.
fn echo(status: &'static str) -> impl Fn(usize, &wire::Request) -> Reply {
    move |_, request| {
        // The token by which etcd knows whoever has logged in.
        if request.line.contains("authenticate") {
            return Reply::json(format!("{{\"token\":\"{TOKEN}\"}}"));
        }
        let told = format!(
            "{TOKEN} {USER}:{} {} {BASIC} {}",
            PASSWORD[0], PASSWORD[1], request.line
        );
        Reply::new(status, &[("x-consul-index", "1")], format!("\"{told}\""))
    }
}

#[tokio::test]
async fn secrets_are_sent_and_shown_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    // Success, then silence: what was logged of a success is looked at below.
    let server = Server::start(|_, request| {
        let body = match request.line.contains("apps") {
            true => r#"{"applications":{"apps__hashcode":""}}"#,
            false => "[]",
        };
        Reply::new("200 OK", &[("x-consul-index", "1")], body)
    })
    .await;
    let [consul, eureka, ..] = registries(&server.address);
    for registry in [consul, eureka] {
        let (sender, mut updates) = buttress::discovery::Updates::channel();
        let watch = tokio::spawn(registry.watch("orders", sender));
        updates.recv().await.expect("a list");
        updates.recv().await.expect("a confirmation");
        watch.abort();
        let instance = Instance::new("a", "10.0.0.1", 80);
        registry
            .register("orders", &instance, Duration::from_secs(9))
            .await
            .unwrap();
        registry
            .renew("orders", &instance, Status::Down)
            .await
            .unwrap();
        registry.deregister("orders", &instance).await.unwrap();
    }
    let asked = server.asked();
    assert!(
        asked.iter().any(|request| request.head.contains(TOKEN)),
        "the token was sent"
    );
    let basic = BASIC.to_ascii_lowercase();
    assert!(
        asked.iter().all(|request| request.head.contains(&basic)),
        "the password was sent"
    );
    for request in asked {
        assert_clean(&request.line, "the request line");
        assert_clean(&request.body, "a body that was sent");
    }

    // Nobody there, and one that does not exist.
    let nowhere = "nowhere.invalid";
    let nobody = nobody().into_iter().chain(registries(nowhere));
    for registry in nobody.chain([zookeeper(nowhere)]) {
        use_all(&registry).await;
    }
    // Refusals and garbage, all of which repeat what they were told.
    for status in [
        "200 OK",
        "302 Found",
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "500 Internal Server Error",
    ] {
        let server = Server::start(echo(status)).await;
        for registry in registries(&server.address) {
            use_all(&registry).await;
        }
    }
    // No HTTP at all, and a connection that breaks off.
    for raw in [format!("{TOKEN} {BASIC}\r\n\r\n"), String::new()] {
        let server = Server::start(move |_, _| Reply::Raw(raw.clone().into_bytes())).await;
        for registry in registries(&server.address) {
            use_all(&registry).await;
        }
    }

    let text = log.text();
    assert!(
        text.contains("TRACE hyper") || text.contains("TRACE hyper_util"),
        "hyper was not heard: {text}"
    );
    for line in text.lines() {
        assert_clean(line, "the log");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_and_what_is_kept_on_disk_have_no_secret() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let instance = Instance::new("a", "10.0.0.1", 80).metadata("token", TOKEN);
    let instance = instance.metadata("admin", format!("http://{USER}:{}@h", PASSWORD[0]));
    let ttl = Duration::from_secs(3600);
    memory.register("orders", &instance, ttl).await.unwrap();
    for (nth, registry) in nobody().into_iter().enumerate() {
        let path = folder.path().join(nth.to_string());
        let resolver = Resolver::new(registry)
            .or(memory.clone())
            .snapshot_file(SnapshotFile::new(&path))
            .observe(MetricsObserver::new());
        let watch = resolver.watch("orders");
        watch.resolved().await.unwrap();
        clock::sleep(Duration::from_secs(60)).await;
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept.contains("10.0.0.1"), "{kept}");
        assert_clean(&kept, "the snapshot");
    }
    let series = recorder.snapshotter().snapshot().into_vec();
    let series = format!("{series:?}");
    assert!(series.contains("zookeeper at "), "{series}");
    assert_clean(&series, "the figures");
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_not_repeated() {
    for url in [
        format!("ftp://{USER}:{}@host", PASSWORD[0]),
        format!("http://{USER}:{}@", PASSWORD[0]),
        format!("http://{USER}:{}@host:99999", PASSWORD[0]),
        format!("{USER}:{}@host", PASSWORD[0]),
        format!("http://{USER}:{TOKEN}?{}@host", PASSWORD[0]),
        format!("http://%ab:{}@host", PASSWORD[0]),
        format!("http://{USER}:{},more@host", PASSWORD[0]),
        format!("http://{USER}:1,{},http://more@host", PASSWORD[0]),
        format!("http://{USER}:1/{}@host", PASSWORD[0]),
        format!("http://{USER}:1?{}@host:99999", PASSWORD[0]),
    ] {
        assert_error_is_clean(&Consul::new(&url).unwrap_err());
        assert_error_is_clean(&Eureka::new(&url).unwrap_err());
    }
}

#[tokio::test]
async fn a_secret_with_a_space_is_not_repeated_by_joining_lines() {
    let server = Server::start(|_, _| {
        let body = r#"{"code": 403, "message": "who is t0ken\n0f-kubernetes?"}"#;
        Reply::status("403 Forbidden", body)
    })
    .await;
    let secret = "t0ken 0f-kubernetes";
    let kubernetes = Kubernetes::new(&format!("http://{}", server.address)).unwrap();
    let error = Watching::start(&kubernetes.token(secret), "orders")
        .error()
        .await;
    assert!(!error.to_string().contains(secret), "{error}");

    let server = Server::start(|_, _| Reply::status("403 Forbidden", "who is t0ken\n0f-consul?"));
    let secret = "t0ken 0f-consul";
    let consul = Consul::new(&format!("http://{}", server.await.address)).unwrap();
    let error = Watching::start(&consul.token(secret), "orders")
        .error()
        .await;
    assert!(!error.to_string().contains(secret), "{error}");
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_not_repeated() {
    let consul = Consul::new("http://127.0.0.1:1")
        .unwrap()
        .token(format!("{TOKEN}\u{1}"));
    assert_error_is_clean(&Watching::start(&consul, "orders").error().await);
}
