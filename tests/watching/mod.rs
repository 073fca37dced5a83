//! Watches under way, and the real servers that there may be.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.

pub mod message;
pub mod proxy;
pub mod zone;

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use buttress::clock;
use buttress::discovery::{Instance, Registry, RegistryError, Status, Update, Updates};
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

/// Whether there is one instance, of that `status`.
pub fn is_one(status: Status) -> impl Fn(&[Instance]) -> bool {
    move |instances| matches!(instances, [one] if one.status == status)
}

/// Whether `is_so` comes true within `limit`.
pub async fn until(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let began = clock::now();
    while !is_so() {
        if clock::now() - began > limit {
            return false;
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
    true
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

    /// The next update, which must come within 30 s.
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
    pub async fn until(&mut self, mut wanted: impl FnMut(&[Instance]) -> bool) -> Vec<Instance> {
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

    /// Why it cannot be read at the moment, as the next update says.
    pub async fn failed(&mut self) -> RegistryError {
        match self.next().await {
            Update::Failed(error) => error,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// Why it ended.
    pub async fn error(mut self) -> RegistryError {
        while self.updates.recv().await.is_some() {}
        self.ended.await.unwrap()
    }
}

/// How long what registers in these tests is kept: longer than any takes.
pub const TTL: Duration = Duration::from_secs(30);
pub const PATIENCE: Duration = Duration::from_secs(30);
