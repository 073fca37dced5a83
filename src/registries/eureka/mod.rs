//! Discovery and registration with a Eureka server. See the [guide](crate::docs::registries::eureka).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::discovery::Registration;
//! use buttress::registries::eureka::Eureka;
//! use buttress::{Instance, Resolver};
//!
//! let eureka = Eureka::new("http://localhost:8761/eureka")?;
//! let here = Instance::new("orders-1", "10.0.0.7", 8080);
//! let registered = Registration::new(eureka.clone(), "orders", here).start();
//! let stock = Resolver::new(eureka).watch("stock").resolved().await?;
//! println!("{} instances of stock", stock.instances().len());
//! registered.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod apps;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod poll;
mod wire;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{ClientBuilder, Method, Response, StatusCode};

use self::poll::Poll;
use super::http::{Http, PATIENCE};
use crate::discovery::{BoxFuture, Instance, Registry, RegistryError, Renewal, Status, Updates};

/// A Eureka server. Clones share one poll, whatever the number of services watched.
#[derive(Clone)]
pub struct Eureka {
    http: Http,
    poll_every: Duration,
    poll: Arc<Poll>,
    leases: Arc<Mutex<HashMap<Key, Lease>>>,
}

/// Application and instance.
type Key = (String, String);

/// What this process registered: Eureka takes a change of status only as another registration.
#[derive(Clone, Copy)]
struct Lease {
    ttl: Duration,
    told: Status,
}

impl Eureka {
    /// The server whose registry is at `url`, such as `http://localhost:8761/eureka`. A user and password in it are
    /// sent as a header and shown nowhere. For `https`, enable a TLS feature of `reqwest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if `url` is no URL of `http` or `https`.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        Ok(Self {
            http: Http::new("eureka", url)?,
            poll_every: POLL,
            poll: Arc::default(),
            leases: Arc::default(),
        })
    }

    /// How often to ask for changes, give or take 10 %. Default 30 s, as often as a server prepares an answer.
    ///
    /// # Panics
    ///
    /// If `every` is below 100 ms.
    #[must_use]
    #[track_caller]
    pub fn poll(mut self, every: Duration) -> Self {
        assert!(
            every >= SOONEST,
            "a poll every {every:?} is more than a Eureka server bears"
        );
        self.poll_every = every;
        self
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.http.client(builder)?;
        Ok(self)
    }

    async fn follow(&self, service: &str, updates: &Updates) -> Result<Infallible, RegistryError> {
        let app = service.to_uppercase();
        let mut reader = self.poll.reader();
        let mut known: Option<Vec<Instance>> = None;
        loop {
            let apps = reader.next(&self.http, self.poll_every).await?;
            let instances = apps.instances(&app);
            if known.as_ref() == Some(&instances) {
                updates.confirmed().await;
                continue;
            }
            updates.instances(instances.clone()).await;
            known = Some(instances);
        }
    }

    async fn post(
        &self,
        key: Key,
        service: &str,
        instance: &Instance,
        lease: Lease,
    ) -> Result<(), RegistryError> {
        let body = wire::registration(service, instance, lease.told, lease.ttl);
        let request = self.http.request(Method::POST, ["apps", &key.0], &[]);
        let response = self.http.send(request.json(&body), PATIENCE).await?;
        if !response.status().is_success() {
            return Err(self.http.refused(response).await);
        }
        self.leases().insert(key, lease);
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        key: &Key,
        status: &[(&str, &str)],
    ) -> Result<Response, RegistryError> {
        let request = self.http.request(method, ["apps", &key.0, &key.1], status);
        let response = self.http.send(request, PATIENCE).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(response),
            status if status.is_success() => Ok(response),
            _ => Err(self.http.refused(response).await),
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Eureka {
    fn name(&self) -> &str {
        self.http.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (eureka, service) = (self.clone(), service.to_owned());
        Box::pin(async move {
            match eureka.follow(&service, &updates).await {
                Err(error) => error,
                Ok(never) => match never {},
            }
        })
    }

    fn register(
        &self,
        service: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (eureka, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        let told = instance.status;
        Box::pin(async move {
            let key = key(&service, &instance);
            eureka
                .post(key, &service, &instance, Lease { ttl, told })
                .await
        })
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let (eureka, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        Box::pin(async move {
            let key = key(&service, &instance);
            let query = [("status", wire::status(status))];
            let response = eureka.ask(Method::PUT, &key, &query).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(Renewal::Unknown);
            }
            let lease = eureka.leases().get(&key).copied();
            match lease {
                Some(lease) if lease.told == status => {}
                lease => {
                    let ttl = lease.map_or(TTL, |lease| lease.ttl);
                    let lease = Lease { ttl, told: status };
                    eureka.post(key, &service, &instance, lease).await?;
                }
            }
            Ok(Renewal::Renewed)
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (eureka, key) = (self.clone(), key(service, instance));
        Box::pin(async move {
            eureka.leases().remove(&key);
            eureka.ask(Method::DELETE, &key, &[]).await.map(|_| ())
        })
    }
}

impl fmt::Debug for Eureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eureka")
            .field("http", &self.http)
            .field("poll_every", &self.poll_every)
            .finish_non_exhaustive()
    }
}

fn key(service: &str, instance: &Instance) -> Key {
    (service.to_uppercase(), instance.id.clone())
}

const POLL: Duration = Duration::from_secs(30);
const SOONEST: Duration = Duration::from_millis(100);
/// The lease of an instance that another process registered: Eureka's own default.
const TTL: Duration = Duration::from_secs(90);
