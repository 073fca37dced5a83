//! Discovery and registration with an etcd cluster. See the [guide](crate::docs::registries::etcd).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::discovery::Registration;
//! use buttress::registries::etcd::Etcd;
//! use buttress::{Instance, Resolver};
//!
//! let etcd = Etcd::new("http://10.0.0.1:2379,http://10.0.0.2:2379")?;
//! let here = Instance::new("orders-1", "10.0.0.7", 8080);
//! let registered = Registration::new(etcd.clone(), "orders", here).start();
//! let stock = Resolver::new(etcd).watch("stock").resolved().await?;
//! println!("{} instances of stock", stock.instances().len());
//! registered.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod call;
pub(crate) mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod login;
mod stream;
mod value;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::ClientBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use self::call::{Cluster, Failure, Why};
use self::follow::Follow;
use self::login::Login;
use self::wire::{Decided, Done, Lease};
use super::http::wrong;
use super::servers::{Order, Servers};
use crate::discovery::{BoxFuture, Instance, Registry, RegistryError, Renewal, Status, Updates};

/// An etcd cluster. A cheap clone talks to the same one.
#[derive(Clone)]
pub struct Etcd {
    cluster: Cluster,
    /// Empty, or ends with a slash.
    prefix: String,
    /// What this process registered, by key.
    held: Arc<Mutex<HashMap<String, Held>>>,
}

/// What is known of a key that was put here.
#[derive(Clone, Copy)]
struct Held {
    lease: i64,
    told: Status,
}

impl Etcd {
    /// The cluster whose members are at `endpoints`, URLs separated by commas:
    /// `http://10.0.0.1:2379,http://10.0.0.2:2379`. For `https`, enable a TLS feature of `reqwest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if one is no URL of `http` or `https`, or
    /// has a user or password.
    pub fn new(endpoints: &str) -> Result<Self, RegistryError> {
        let servers = Servers::new("etcd", endpoints, Order::Any)?;
        if let Some(http) = servers.iter().find(|http| http.has_user()) {
            let message = "its URL has a user or password, which belong into `Etcd::user`";
            return Err(wrong(http.name(), message));
        }
        let login = None;
        Ok(Self {
            cluster: Cluster { servers, login },
            prefix: String::new(),
            held: Arc::default(),
        })
    }

    /// Logs in as the user of that `name`, and again whenever the token has expired. The password and the tokens are
    /// shown nowhere. White space around the password is left out, since files end in a new line. Where etcd has no
    /// users, requests go without.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<SecretString>) -> Self {
        let password = password.into();
        let password = password.expose_secret().trim();
        let servers = &mut self.cluster.servers;
        servers.keep_out(password);
        // As it stands in what is sent.
        servers.keep_out(json!(password).to_string().trim_matches('"'));
        self.cluster.login = Some(Arc::new(Login::new(name.into(), password.into())));
        self
    }

    /// Keeps instances at `PREFIX/SERVICE/ID`, so that others may use the same cluster. Default: none, at `SERVICE/ID`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = match prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        self
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.cluster.servers.client(builder)?;
        Ok(self)
    }

    async fn put(&self, key: String, instance: &Instance, ttl: Duration) -> Result<(), Failure> {
        let seconds = (ttl.as_secs()).saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let seconds = seconds.clamp(1, LONGEST_TTL).to_string();
        let grant = ["v3", "lease", "grant"];
        let Lease { id: lease, .. } = self.cluster.ask(&grant, &json!({"TTL": seconds})).await?;
        let value = value::encode(instance, instance.status);
        let put = wire::put(&key, &value, lease);
        let Done {} = self.cluster.ask(&["v3", "kv", "put"], &put).await?;
        let told = instance.status;
        self.held().insert(key, Held { lease, told });
        Ok(())
    }

    async fn keep(
        &self,
        key: String,
        instance: &Instance,
        status: Status,
    ) -> Result<Renewal, Failure> {
        let held = self.held().get(&key).copied();
        let Some(held) = held else {
            return Ok(Renewal::Unknown);
        };
        if self.cluster.keep_alive(held.lease).await? <= 0 {
            return Ok(Renewal::Unknown);
        }
        let decided = self.say(&key, held, instance, status).await?;
        // One that somebody else has put there since is theirs to keep.
        if !decided.succeeded && !decided.is_there() {
            return Ok(Renewal::Unknown);
        }
        if decided.succeeded {
            let told = status;
            self.held().insert(key, Held { told, ..held });
        }
        Ok(Renewal::Renewed)
    }

    /// Tells the status of `key`, if it is still ours and that is news.
    async fn say(
        &self,
        key: &str,
        held: Held,
        instance: &Instance,
        status: Status,
    ) -> Result<Decided, Failure> {
        let value = || value::encode(instance, status);
        let put = (held.told != status).then(|| wire::put(key, &value(), held.lease));
        let decide = wire::put_if_held(key, held.lease, put);
        self.cluster.ask(&["v3", "kv", "txn"], &decide).await
    }

    async fn take_out(&self, key: String, instance: &Instance) -> Result<(), Failure> {
        let held = self.held().get(&key).copied();
        let Some(held) = held else {
            let delete = ["v3", "kv", "deleterange"];
            let Done {} = self.cluster.ask(&delete, &wire::delete(&key)).await?;
            return Ok(());
        };
        // Lest it look like a lease that ran out.
        if held.told != Status::OutOfService {
            self.say(&key, held, instance, Status::OutOfService).await?;
        }
        let lease = json!({"ID": held.lease.to_string()});
        match self.cluster.ask(&["v3", "lease", "revoke"], &lease).await {
            Ok(Done {}) => {}
            Err(failure) if failure.why == Why::Missing => {}
            Err(failure) => return Err(failure),
        }
        self.held().remove(&key);
        Ok(())
    }

    /// The folder of `service`. Its name may come from a URL's host, which is in lower case.
    fn folder(&self, service: &str) -> String {
        format!("{}{}/", self.prefix, service.to_lowercase())
    }

    fn key(&self, service: &str, instance: &Instance) -> String {
        self.folder(service) + &instance.id
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Etcd {
    fn name(&self) -> &str {
        self.cluster.servers.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let follow = Follow::new(self.cluster.clone(), self.folder(service), updates);
        Box::pin(async move {
            match follow.run().await {
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
        let key = self.key(service, instance);
        let (etcd, instance) = (self.clone(), instance.clone());
        Box::pin(async move { etcd.put(key, &instance, ttl).await.map_err(Failure::error) })
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let key = self.key(service, instance);
        let (etcd, instance) = (self.clone(), instance.clone());
        Box::pin(async move {
            let kept = etcd.keep(key, &instance, status).await;
            kept.map_err(Failure::error)
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let key = self.key(service, instance);
        let (etcd, instance) = (self.clone(), instance.clone());
        Box::pin(async move {
            let gone = etcd.take_out(key, &instance).await;
            gone.map_err(Failure::error)
        })
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("servers", &self.cluster.servers)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// What etcd takes at most, in seconds: 285 years.
const LONGEST_TTL: u64 = 9_000_000_000;
