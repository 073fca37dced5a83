//! A registry inside the process: for tests, demonstrations, and services that live together. See the [guide](crate::docs::registries::memory).
//!
//! It has leases that run out, and can be told to be down or to forget everything, so that what an outage does can be
//! seen without one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use buttress::registries::memory::Memory;
//! use buttress::{Instance, Registry, Resolver};
//!
//! let registry = Memory::new();
//! let orders = Instance::new("orders-1", "10.0.0.7", 8080);
//! registry.register("orders", &orders, Duration::MAX).await?;
//! let watch = Resolver::new(registry.clone()).watch("orders");
//! let known = watch.resolved().await?;
//!
//! registry.set_down(true);
//! assert!(Resolver::new(registry).watch("orders").resolved().await.is_err());
//! assert_eq!(watch.resolved().await?.version(), known.version());
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock;
use crate::discovery::{
    BoxFuture, ErrorKind, Instance, Registry, RegistryError, Renewal, Status, Update, Updates,
};

/// A registry inside the process. A cheap clone shares.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    /// By name in lower case, since that of a host in a URL is.
    services: HashMap<String, BTreeMap<String, Lease>>,
}

#[derive(Debug)]
struct Lease {
    instance: Instance,
    ttl: Duration,
    expires: Instant,
    /// Taken out on purpose; kept until it would have expired, so that every watch hears why it is gone.
    has_left: bool,
}

impl Memory {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins or ends an outage: watches break off, and nothing is answered. Leases run out meanwhile.
    pub fn set_down(&self, is_down: bool) {
        self.state.send_modify(|state| state.is_down = is_down);
    }

    /// Forgets every instance, as a registry does that restarts without its data.
    pub fn clear(&self) {
        self.state.send_modify(|state| state.services.clear());
    }

    /// Runs `change` unless the registry is down. It says whether there is something to tell the watches.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut State, Instant) -> (T, bool) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let this = self.clone();
        Box::pin(async move {
            let mut answer = Err(down());
            this.state.send_if_modified(|state| {
                if state.is_down {
                    return false;
                }
                let (changed, tell) = change(state, clock::now());
                answer = Ok(changed);
                tell
            });
            answer
        })
    }
}

impl Registry for Memory {
    fn name(&self) -> &str {
        NAME
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let this = self.clone();
        let service = service.to_ascii_lowercase();
        Box::pin(async move {
            let mut changes = this.state.subscribe();
            let mut told: Option<Vec<Instance>> = None;
            loop {
                let now = clock::now();
                let seen = changes.borrow_and_update().look(&service, &told, now);
                let Some(seen) = seen else {
                    if told.is_some() {
                        updates.confirmed().await;
                    }
                    return down();
                };
                if told.as_ref() == Some(&seen.instances) {
                    updates.confirmed().await;
                } else {
                    let instances = seen.instances.clone();
                    let authoritative = seen.authoritative;
                    updates
                        .send(Update::Instances {
                            instances,
                            authoritative,
                        })
                        .await;
                    told = Some(seen.instances);
                }
                tokio::select! {
                    // The sender is in `this`, so that the wait cannot fail.
                    _ = changes.changed() => {}
                    () = clock::until(seen.next_expiry.unwrap_or(now)), if seen.next_expiry.is_some() => {}
                }
            }
        })
    }

    fn register(
        &self,
        service: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let service = service.to_ascii_lowercase();
        let instance = instance.clone();
        self.change(move |state, now| {
            let leases = state.services.entry(service).or_default();
            leases.retain(|_, lease| lease.expires > now);
            let lease = Lease {
                ttl,
                expires: clock::after(now, ttl),
                has_left: false,
                instance,
            };
            leases.insert(lease.instance.id.clone(), lease);
            ((), true)
        })
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let service = service.to_ascii_lowercase();
        let id = instance.id.clone();
        self.change(move |state, now| {
            let lease = state.lease(&service, &id);
            let Some(lease) = lease.filter(|lease| lease.is_live(now)) else {
                return (Renewal::Unknown, false);
            };
            lease.expires = clock::after(now, lease.ttl);
            let tell = std::mem::replace(&mut lease.instance.status, status) != status;
            (Renewal::Renewed, tell)
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let service = service.to_ascii_lowercase();
        let id = instance.id.clone();
        self.change(move |state, _| {
            let lease = state.lease(&service, &id);
            let tell = lease.is_some_and(|lease| !std::mem::replace(&mut lease.has_left, true));
            ((), tell)
        })
    }
}

/// What a watch sees of a service.
struct Seen {
    instances: Vec<Instance>,
    /// Whether all that are missing since the last look left on purpose.
    authoritative: bool,
    next_expiry: Option<Instant>,
}

impl State {
    fn lease(&mut self, service: &str, id: &str) -> Option<&mut Lease> {
        self.services.get_mut(service)?.get_mut(id)
    }

    /// What there is of `service` after a watch was told `told`, unless the registry is down.
    fn look(&self, service: &str, told: &Option<Vec<Instance>>, now: Instant) -> Option<Seen> {
        if self.is_down {
            return None;
        }
        let none = BTreeMap::new();
        let leases = self.services.get(service).unwrap_or(&none);
        let live = || leases.values().filter(|lease| lease.is_live(now));
        let is_live = |id: &str| leases.get(id).is_some_and(|lease| lease.is_live(now));
        let is_missing = |told: &&Instance| !is_live(&told.id);
        let missing: Vec<_> = told.iter().flatten().filter(is_missing).collect();
        let has_left = |told: &&Instance| leases.get(&told.id).is_some_and(|lease| lease.has_left);
        Some(Seen {
            instances: live().map(|lease| lease.instance.clone()).collect(),
            authoritative: !missing.is_empty() && missing.iter().all(has_left),
            next_expiry: live().map(|lease| lease.expires).min(),
        })
    }
}

impl Lease {
    fn is_live(&self, now: Instant) -> bool {
        !self.has_left && self.expires > now
    }
}

fn down() -> RegistryError {
    RegistryError::new(NAME, ErrorKind::Unreachable, "it is down")
}

const NAME: &str = "memory";
