//! The real servers of `scripts/test`, killed, stopped and made to forget, and the networks before them broken, while
//! calls flow. Alone in its file, since what else asks them meanwhile would fail. How to add a registry:
//! `tests/rows/mod.rs`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod rows;
mod watching;

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use buttress::clock;
use buttress::discovery::{
    ErrorKind, Freshness, Instance, Registered, Registration, Registry, Renewal, Resolver, Status,
    Watch,
};
use buttress::transport::reqwest::Client;
use rows::{Fault, Row};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use watching::{TTL, Watching, left_out, real, unique, until};

macro_rules! chaos {
    ($($row:ident)*) => { $(
        #[tokio::test]
        async fn $row() {
            if let Some(row) = <rows::$row::Row as Row>::start().await {
                no_call_fails_whatever_happens_to_the_registry(row).await;
            }
        }
    )* };
}

chaos!(consul dns etcd eureka kubernetes zookeeper);

/// What happens to a server, or to the network before it.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// SIGKILL, and back with what it has on disk.
    Killed,
    /// SIGKILL, and back with nothing.
    Forgot,
    /// SIGSTOP, and SIGCONT.
    Stopped,
    Network(Fault),
}

async fn no_call_fails_whatever_happens_to_the_registry<R: Row>(row: R) {
    let events = [
        Event::Network(Fault::Cut),
        Event::Network(Fault::Slow(Duration::from_secs(2))),
        Event::Network(Fault::Partial(300)),
        Event::Network(Fault::Garbage),
        Event::Killed,
        Event::Forgot,
        Event::Stopped,
    ];
    let is_ours = real("BUTTRESS_SERVERS_STATE").is_some() && servers("status", R::NAME).await;
    let calls = Calls::start(&row).await;
    for event in events {
        // Without a disk it comes back with nothing, which is another event.
        if matches!(event, Event::Killed) && !R::KEEPS {
            continue;
        }
        if !matches!(event, Event::Network(_)) && !is_ours {
            left_out(&format!("{event:?} of {}, which is not ours", R::NAME));
            continue;
        }
        let made = calls.made();
        let lasts = A_WHILE + R::SILENCE;
        let began = clock::now();
        match event {
            Event::Network(fault) => {
                if !row.fault(fault).await {
                    left_out(&format!("{event:?} of {}", R::NAME));
                    continue;
                }
                // Something to tell, lest the watch be silent all the while.
                let other = answering::<R>().await;
                row.write(&calls.service, &other).await;
                clock::sleep(lasts / 2).await;
                row.remove(&calls.service, &other.id).await;
                clock::sleep(lasts / 2).await;
                row.fault(Fault::None).await;
            }
            Event::Killed => {
                assert!(servers("kill", R::NAME).await);
                clock::sleep(lasts).await;
                assert!(servers("revive", R::NAME).await);
            }
            Event::Forgot if R::REGISTERS => is_forgotten(&row).await,
            Event::Forgot => {
                let mut watching = Watching::start(&row.registry(), &calls.service);
                watching.instances().await;
                assert!(servers("kill", R::NAME).await);
                clock::sleep(lasts).await;
                // Over UDP, one that is gone is one that is silent.
                let gone = watching.error().await.kind();
                assert!(matches!(gone, ErrorKind::Unreachable | ErrorKind::TimedOut));
                assert!(servers("restart", R::NAME).await);
                let mut watching = Watching::start(&row.registry(), &calls.service);
                assert_eq!(watching.instances().await, []);
                // Whoever resolves goes on with what it knew.
                assert!(until(RECOVERED, || calls.all_are_held()).await);
                calls.write(&row).await;
            }
            Event::Stopped => {
                assert!(servers("pause", R::NAME).await);
                clock::sleep(STOPPED).await;
                let freshness = calls.watch().freshness();
                assert!(servers("resume", R::NAME).await);
                // Others wait for news, which may not come for longer.
                let is_stale = matches!(freshness, Freshness::Stale { .. });
                assert!(is_stale || R::SILENCE.is_zero(), "{freshness:?}");
            }
        }
        let lasted = clock::now() - began;

        let mended = clock::now();
        let recovered = until(RECOVERED, || calls.all_are_known()).await;
        let recovered_in = clock::now() - mended;
        assert!(recovered, "{event:?}: {:?}", calls.watch());
        let known_in = calls.a_change_is_known(&row).await;
        let (made, failed) = (calls.made() - made, calls.failed().len());
        say(format_args!(
            "{}: {event:?} for {lasted:.1?}, {made} calls, {failed} failed: back after {recovered_in:.1?}, and a change \
            was known after {known_in:.0?}",
            R::NAME
        ));
        assert_eq!(calls.failed(), [""; 0], "{event:?}");
        assert!(known_in < R::INTERVAL + SLACK, "{event:?}: {known_in:?}");
    }
}

/// The server is killed and restarted with an empty store. What the library itself hears of it is told apart.
async fn is_forgotten<R: Row>(row: &R) {
    let (registry, service) = (row.registry(), unique("stock"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&registry, &service);
    watching.until(|instances| !instances.is_empty()).await;

    assert!(servers("kill", R::NAME).await);
    let renewal = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap_err().kind(), ErrorKind::Unreachable);
    assert_eq!(watching.error().await.kind(), ErrorKind::Unreachable);

    assert!(servers("restart", R::NAME).await);
    let renewal = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
    let mut watching = Watching::start(&registry, &service);
    assert_eq!(watching.instances().await, []);
    registry.register(&service, &instance, TTL).await.unwrap();
    let found = watching.until(|instances| !instances.is_empty()).await;
    assert_eq!(found, std::slice::from_ref(&instance));
    registry.deregister(&service, &instance).await.unwrap();
}

async fn servers(verb: &str, server: &str) -> bool {
    let mut command = Command::new("scripts/servers");
    let output = command.args([verb, server]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success() && (verb != "status" || said.contains("running"))
}

fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// 200 calls a second to a service, the instances of which keep themselves registered where they can.
struct Calls {
    service: String,
    client: Client,
    outcomes: Arc<Mutex<Outcomes>>,
    instances: Vec<Instance>,
    _registered: Vec<Registered>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Outcomes {
    made: usize,
    failed: Vec<String>,
}

impl Calls {
    async fn start<R: Row>(row: &R) -> Self {
        let service = unique("orders");
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(answering::<R>().await);
        }
        let register = |instance: &Instance| {
            // Over the same network, so that heartbeats fail as well.
            let registration = Registration::new(row.registry(), &*service, instance.clone());
            registration.ttl(Duration::from_secs(6)).start()
        };
        let registering = instances.iter().filter(|_| R::REGISTERS);
        let registered = registering.map(register).collect();
        let client = Client::new(reqwest::Client::new(), Resolver::new(row.registry()));
        let outcomes: Arc<Mutex<Outcomes>> = Arc::default();
        let task = tokio::spawn(call(client.clone(), service.clone(), Arc::clone(&outcomes)));
        let calls = Self {
            service,
            client,
            outcomes,
            instances,
            _registered: registered,
            task,
        };
        if !R::REGISTERS {
            calls.write(row).await;
        }
        assert!(until(RECOVERED, || calls.all_are_known()).await);
        // Those that were made before the first instance was there.
        *calls.outcomes.lock().unwrap() = Outcomes::default();
        calls
    }

    /// Writes the instances, for those that cannot register themselves.
    async fn write<R: Row>(&self, row: &R) {
        for instance in &self.instances {
            row.write(&self.service, instance).await;
        }
    }

    fn made(&self) -> usize {
        self.outcomes.lock().unwrap().made
    }

    fn failed(&self) -> Vec<String> {
        self.outcomes.lock().unwrap().failed.clone()
    }

    fn watch(&self) -> Watch {
        self.client.service(&self.service).watch().clone()
    }

    fn all_are_known(&self) -> bool {
        let watch = self.watch();
        watch.freshness() == Freshness::Fresh && watch.snapshot().live().len() == INSTANCES
    }

    /// Whether the registry names nobody, and they are known all the same. One that went before may be with them: losses
    /// add up.
    fn all_are_held(&self) -> bool {
        let snapshot = self.client.service(&self.service).watch().snapshot();
        let held = |one: &Instance| snapshot.held().iter().any(|held| held.id == one.id);
        snapshot.live().is_empty() && self.instances.iter().all(held)
    }

    /// How long it takes until an instance that comes is known, and then one that goes.
    async fn a_change_is_known<R: Row>(&self, row: &R) -> Duration {
        let instance = answering::<R>().await;
        let is_known = || {
            let snapshot = self.watch().snapshot();
            snapshot.live().iter().any(|one| one.id == instance.id)
        };
        row.write(&self.service, &instance).await;
        let began = clock::now();
        assert!(until(RECOVERED, is_known).await);
        let came = clock::now() - began;
        row.remove(&self.service, &instance.id).await;
        let began = clock::now();
        assert!(until(RECOVERED, || !is_known()).await);
        came.max(clock::now() - began)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn call(client: Client, service: String, outcomes: Arc<Mutex<Outcomes>>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        let answer = client.get(format!("http://{service}/")).send();
        let outcomes = Arc::clone(&outcomes);
        tokio::spawn(async move {
            let answer = answer.await;
            let mut outcomes = outcomes.lock().unwrap();
            outcomes.made += 1;
            match answer {
                Ok(answer) if answer.status().is_success() => {}
                answer => outcomes.failed.push(format!("{answer:?}")),
            }
        });
    }
}

/// An instance that answers.
async fn answering<R: Row>() -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(|| async { "" });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let instance = Instance::new(unique("i"), address.ip().to_string(), address.port());
    R::told(instance)
}

const INSTANCES: usize = 3;
/// How long a fault lasts, once it is noticed.
const A_WHILE: Duration = Duration::from_secs(4);
const STOPPED: Duration = Duration::from_secs(30);
/// How long after a fault a client and the instances are back: the waits between attempts grow to a minute.
const RECOVERED: Duration = Duration::from_secs(75);
/// What a machine that has other things to do may add to any limit.
const SLACK: Duration = Duration::from_secs(3);
