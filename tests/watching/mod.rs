//! Watches under way, and the real servers that there may be.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.

pub mod zone;

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use buttress::clock;
use buttress::discovery::{Instance, Registry, RegistryError, Update, Updates};
use tokio::sync::mpsc;

/// The value of an environment variable that names a server; without it, says on stderr what is left out.
pub fn real(variable: &str) -> Option<String> {
    let value = std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty());
    if value.is_none() {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test").to_owned();
        left_out(&format!("{test}, since {variable} is not set"));
    }
    value
}

/// Says what is not tested, past the harness, which keeps to itself what a test that passes prints.
pub fn left_out(what: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}

/// A name that no other test and no earlier run has.
pub fn unique(name: &str) -> String {
    let now = clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    format!("{name}-{:x}", now.as_nanos())
}

/// A watch under way.
pub struct Watching {
    pub updates: mpsc::Receiver<Update>,
    pub ended: tokio::task::JoinHandle<RegistryError>,
}

impl Watching {
    pub fn start(registry: &(impl Registry + ?Sized), service: &str) -> Self {
        let (sender, updates) = Updates::channel();
        let ended = tokio::spawn(registry.watch(service, sender));
        Self { updates, ended }
    }

    /// The next update, which must come within 20 s.
    pub async fn next(&mut self) -> Update {
        let next = tokio::time::timeout(PATIENCE, self.updates.recv()).await;
        match next.expect("no update in time") {
            Some(update) => update,
            None => panic!("the watch ended: {:?}", (&mut self.ended).await),
        }
    }

    /// The instances of the next update.
    pub async fn instances(&mut self) -> Vec<Instance> {
        match self.next().await {
            Update::Instances {
                instances,
                authoritative,
            } => {
                assert!(!authoritative);
                instances
            }
            other => panic!("expected instances, got {other:?}"),
        }
    }

    /// The first list that `wanted` likes.
    pub async fn until(&mut self, wanted: impl Fn(&[Instance]) -> bool) -> Vec<Instance> {
        let began = clock::now();
        let mut last = Vec::new();
        loop {
            if let Update::Instances { instances, .. } = self.next().await {
                if wanted(&instances) {
                    return instances;
                }
                last = instances;
            }
            assert!(
                clock::now() - began < 3 * PATIENCE,
                "never came; the last list was {last:?}"
            );
        }
    }

    /// Why it ended.
    pub async fn error(mut self) -> RegistryError {
        while self.updates.recv().await.is_some() {}
        self.ended.await.unwrap()
    }
}

/// Two instances, of which one changes, come and go, and a watch sees each step.
pub async fn instances_come_change_and_go(
    registry: &dyn Registry,
    service: &str,
    [a, changed, b]: [Instance; 3],
) {
    let mut watching = Watching::start(registry, service);
    let unknown = watching.instances().await;
    assert_eq!(unknown, [], "an unknown service has no instances");
    let both = |a: &Instance| {
        let mut both = [a.clone(), b.clone()];
        both.sort_by(|a, b| a.id.cmp(&b.id));
        both
    };

    registry.register(service, &a, TTL).await.unwrap();
    watching.until(|found| *found == [a.clone()]).await;
    registry.register(service, &b, TTL).await.unwrap();
    watching.until(|found| *found == both(&a)).await;
    registry.register(service, &changed, TTL).await.unwrap();
    watching.until(|found| *found == both(&changed)).await;
    registry.deregister(service, &changed).await.unwrap();
    watching.until(|found| *found == [b.clone()]).await;
    registry.deregister(service, &b).await.unwrap();
    watching.until(|found| found.is_empty()).await;
    let again = registry.deregister(service, &b).await;
    again.expect("one that is not there is no error");
}

/// A service is found by the host of a URL, which is in lower case.
pub async fn the_case_of_a_services_name_does_not_matter(
    registry: &dyn Registry,
    instance: Instance,
) {
    let service = unique("Orders");
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(registry, &service.to_ascii_lowercase());
    let found = watching.until(|found| !found.is_empty()).await;
    assert_eq!(found, std::slice::from_ref(&instance));
    registry.deregister(&service, &instance).await.unwrap();
}

pub const TTL: Duration = Duration::from_secs(30);
pub const PATIENCE: Duration = Duration::from_secs(20);
