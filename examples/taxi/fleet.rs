use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::{Router, middleware};
use buttress::client::ServiceHandle;
use buttress::discovery::{Registered, Registration};
use buttress::transport::reqwest::Client;
use buttress::{BoxError, Instance};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};

use crate::bookings::Bookings;
use crate::fault::{self, Fault, FaultSwitch};
use crate::policies;
use crate::prices::Prices;
use crate::registry::TaxiRegistry;
use crate::services::{self, Trips};
use crate::stats::Stats;

/// The services, and the zones that each has an instance in.
pub const SERVICES: [&str; 4] = ["trips", "passengers", "pricing", "notifications"];
pub const ZONES: [&str; 3] = ["a", "b", "c"];

/// Every instance that runs, by id: `passengers-a` is the one in zone a.
pub struct Fleet {
    registry: Arc<TaxiRegistry>,
    stats: Arc<Stats>,
    bookings: Bookings,
    processes: Mutex<BTreeMap<String, Process>>,
}

/// An instance. It stands for a process: it has its own thread, and all that it holds goes when it is killed.
struct Process {
    runtime: Runtime,
    fault: FaultSwitch,
    registered: Registered,
    monitored: Option<Monitored>,
}

/// A client and the services that it calls, to look at.
#[derive(Clone)]
pub struct Monitored {
    client: Client,
    services: &'static [&'static str],
}

impl Fleet {
    /// A fleet without instances yet.
    pub fn new(registry: Arc<TaxiRegistry>, stats: Arc<Stats>, bookings: Bookings) -> Self {
        Self {
            registry,
            stats,
            bookings,
            processes: Mutex::default(),
        }
    }

    /// Starts the instance of `service` in `zone`; it registers itself.
    pub async fn start(&self, service: &'static str, zone: &'static str) -> Result<(), BoxError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(id(service, zone))
            .enable_all()
            .build()?;
        let fault = FaultSwitch::default();
        let registry = self.registry.connect()?;
        // Within the runtime, so that the tasks and connections of the instance end with it.
        let (app, monitored) = {
            let _inside = runtime.enter();
            self.app(service)?
        };
        let app = app.layer(middleware::from_fn_with_state(fault.clone(), fault::apply));
        let started = runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            tokio::spawn(async move { axum::serve(listener, app).await });
            let instance = Instance::new(id(service, zone), "127.0.0.1", port).zone(zone);
            let registration = Registration::new(registry, service, instance).ttl(TTL);
            Ok::<_, BoxError>(registration.drain(Duration::ZERO).start())
        });
        let process = Process {
            registered: started.await??,
            runtime,
            fault,
            monitored,
        };
        self.processes().insert(id(service, zone), process);
        Ok(())
    }

    /// Ends an instance at once, as a crash does: connections break, nothing is deregistered.
    pub fn kill(&self, service: &str, zone: &str) {
        if let Some(process) = self.processes().remove(&id(service, zone)) {
            process.registered.abandon();
            process.runtime.shutdown_background();
        }
    }

    /// Sets what is wrong with an instance.
    pub fn set_fault(&self, service: &str, zone: &str, fault: Fault) {
        if let Some(process) = self.processes().get(&id(service, zone)) {
            process.fault.set(fault);
        }
    }

    /// The clients of the instances that call others.
    pub fn clients(&self) -> Vec<Monitored> {
        let processes = self.processes();
        processes
            .values()
            .filter_map(|process| process.monitored.clone())
            .collect()
    }

    /// Takes every instance out of the registry and ends it.
    pub async fn stop(&self) {
        let processes = std::mem::take(&mut *self.processes());
        for process in processes.into_values() {
            // A registry that is gone by now needs no telling.
            let _ = process.registered.deregister().await;
            process.runtime.shutdown_background();
        }
    }

    /// The handlers of a service.
    fn app(&self, service: &str) -> Result<(Router, Option<Monitored>), BoxError> {
        Ok(match service {
            "passengers" => (services::passengers(), None),
            "pricing" => (services::pricing(), None),
            "notifications" => (services::notifications(), None),
            _ => {
                let calls = policies::calls(self.registry.connect()?, self.stats.clone());
                let called = &["passengers", "pricing", "notifications"];
                let monitored = Monitored::new(calls.protected.clone(), called);
                let trips = Trips {
                    prices: Prices::new(calls.clone()),
                    bookings: self.bookings.clone(),
                    calls,
                };
                (services::trips(trips), Some(monitored))
            }
        })
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.processes.lock().expect("nobody panics under it")
    }
}

impl Monitored {
    pub fn new(client: Client, services: &'static [&'static str]) -> Self {
        Self { client, services }
    }

    /// What protects the calls to each of the services.
    pub fn handles(&self) -> impl Iterator<Item = ServiceHandle> {
        self.services
            .iter()
            .map(|service| self.client.service(service))
    }
}

fn id(service: &str, zone: &str) -> String {
    format!("{service}-{zone}")
}

/// After so long without a heartbeat a registry may forget an instance.
const TTL: Duration = Duration::from_secs(3);
