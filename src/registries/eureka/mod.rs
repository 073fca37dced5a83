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
use std::time::{Duration, SystemTime};

use reqwest::{ClientBuilder, Method, RequestBuilder, StatusCode};

use self::apps::By;
use self::poll::{Asked, Poll};
use super::http::Http;
use super::servers::{Order, Servers, Turn};
use crate::clock;
use crate::discovery::{BoxFuture, Instance, Registry, RegistryError, Renewal, Status, Updates};

/// Eureka, through one of its servers. Clones share one poll, whatever the number of services watched.
#[derive(Clone)]
pub struct Eureka {
    asked: Asked,
    by: By,
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
    /// When, in milliseconds since 1970: a peer that has not heard of it yet is to say so.
    written: u64,
}

impl Eureka {
    /// The server whose registry is at `urls`, such as `http://localhost:8761/eureka`; or several peers, separated by
    /// commas. One of them is asked, by chance, for as long as it answers. A user and password in a URL are sent as a
    /// header and shown nowhere. For `https`, enable a TLS feature of `reqwest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if one is no URL of `http` or `https`.
    pub fn new(urls: &str) -> Result<Self, RegistryError> {
        Ok(Self {
            asked: Asked {
                servers: Servers::new("eureka", urls, Order::Any)?,
                regions: String::new(),
                every: POLL,
            },
            by: By::App,
            poll: Arc::default(),
            leases: Arc::default(),
        })
    }

    /// Adds the servers of another zone, which are asked when none of those before answers. After 10 to 30 minutes, the
    /// nearest are asked again.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn other_zone(mut self, urls: &str) -> Result<Self, RegistryError> {
        self.asked.servers.add(urls, Order::Any)?;
        self.poll = Arc::default();
        Ok(self)
    }

    /// Sees the instances of these regions too, as far as the servers know them (`remoteRegionUrlsWithName`).
    #[must_use]
    pub fn regions<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.asked.regions = names.into_iter().collect::<Vec<_>>().join(",");
        self.poll = Arc::default();
        self
    }

    /// Takes a service's name for a virtual address (`vipAddress`), which instances of several applications may share,
    /// and not for that of an application. Shares its poll with the handle it is made of.
    #[must_use]
    pub fn by_vip(mut self) -> Self {
        self.by = By::Vip;
        self
    }

    /// As [`by_vip`](Self::by_vip), for secure virtual addresses: only instances with a secure port are seen.
    #[must_use]
    pub fn by_secure_vip(mut self) -> Self {
        self.by = By::SecureVip;
        self
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
        self.asked.every = every;
        self
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.asked.servers.client(builder)?;
        Ok(self)
    }

    async fn follow(&self, service: &str, updates: &Updates) -> Result<Infallible, RegistryError> {
        let mut reader = self.poll.reader();
        let mut known: Option<Vec<Instance>> = None;
        loop {
            let apps = reader.next(&self.asked).await?;
            let instances = apps.instances(service, self.by);
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
        (ttl, told): (Duration, Status),
    ) -> Result<(), RegistryError> {
        let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        let written = since.unwrap_or_default().as_millis() as u64;
        let body = &wire::registration(service, instance, told, ttl, written);
        let path = &["apps", &key.0];
        let post = |Turn { http, limit, .. }| async move {
            let request = request(&http, Method::POST, path, &[]).json(body);
            let response = http.send(request, limit).await?;
            match response.status().is_success() {
                true => Ok(()),
                false => Err(http.refused(response).await),
            }
        };
        self.asked.servers.each(post).await?;
        let lease = Lease { ttl, told, written };
        self.leases().insert(key, lease);
        Ok(())
    }

    /// Says whether the instance is there.
    async fn ask(
        &self,
        method: Method,
        key: &Key,
        query: &[(&str, &str)],
    ) -> Result<bool, RegistryError> {
        let (path, method) = (&["apps", &key.0, &key.1], &method);
        let ask = |Turn { http, limit, .. }| async move {
            let request = request(&http, method.clone(), path, query);
            let response = http.send(request, limit).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(false),
                status if status.is_success() => Ok(true),
                _ => Err(http.refused(response).await),
            }
        };
        self.asked.servers.each(ask).await
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Eureka {
    fn name(&self) -> &str {
        self.asked.servers.name()
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
            eureka.post(key, &service, &instance, (ttl, told)).await
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
            let lease = eureka.leases().get(&key).copied();
            let written = lease.map(|lease| lease.written.to_string());
            let mut query = vec![("status", wire::status(status))];
            query.extend(written.as_deref().map(|at| ("lastDirtyTimestamp", at)));
            if !eureka.ask(Method::PUT, &key, &query).await? {
                return Ok(Renewal::Unknown);
            }
            if lease.is_none_or(|lease| lease.told != status) {
                let ttl = lease.map_or(TTL, |lease| lease.ttl);
                eureka.post(key, &service, &instance, (ttl, status)).await?;
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
            .field("servers", &self.asked.servers)
            .field("poll_every", &self.asked.every)
            .finish_non_exhaustive()
    }
}

/// A request of a client that says who it is: a server that limits rates may be told to spare it.
fn request(http: &Http, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
    http.request(method, path.iter().copied(), query)
        .header("DiscoveryIdentity-Name", env!("CARGO_PKG_NAME"))
        .header("DiscoveryIdentity-Version", env!("CARGO_PKG_VERSION"))
}

fn key(service: &str, instance: &Instance) -> Key {
    (service.to_uppercase(), instance.id.clone())
}

const POLL: Duration = Duration::from_secs(30);
const SOONEST: Duration = Duration::from_millis(100);
/// The lease of an instance that another process registered: Eureka's own default.
const TTL: Duration = Duration::from_secs(90);
