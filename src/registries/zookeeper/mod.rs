//! Discovery and registration with a ZooKeeper ensemble, in the layout of Curator. See the
//! [guide](crate::docs::registries::zookeeper).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::discovery::Registration;
//! use buttress::registries::zookeeper::ZooKeeper;
//! use buttress::{Instance, Resolver};
//!
//! let zookeeper = ZooKeeper::new("10.0.0.1:2181,10.0.0.2:2181")?;
//! let here = Instance::new("orders-1", "10.0.0.7", 8080);
//! let registered = Registration::new(zookeeper.clone(), "orders", here).start();
//! let stock = Resolver::new(zookeeper).watch("stock").resolved().await?;
//! println!("{} instances of stock", stock.instances().len());
//! registered.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod ensemble;
mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod lease;
mod list;
mod node;
mod put;
mod shared;
mod tree;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zookeeper_client::Connector;

use self::ensemble::{Ensemble, joined};
use self::follow::Follow;
use self::lease::Leases;
use self::node::Payload;
use self::shared::Shared;
use crate::discovery::{BoxFuture, Instance, Registry, RegistryError, Renewal, Status, Updates};

/// A ZooKeeper ensemble. A cheap clone talks to the same one, and all watches share one session.
#[derive(Clone)]
pub struct ZooKeeper {
    ensemble: Ensemble,
    base: String,
    watching: Arc<Shared>,
    leases: Leases,
}

impl ZooKeeper {
    /// The ensemble at `address`, as ZooKeeper writes it: its servers separated by commas, and a path below which
    /// everything is, if there is one: `10.0.0.1:2181,10.0.0.2:2181/team`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::discovery::ErrorKind::Unsupported) if that is not how `address` is written.
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        Ok(Self {
            ensemble: Ensemble::new(address)?,
            base: BASE.into(),
            watching: Arc::default(),
            leases: Leases::default(),
        })
    }

    /// Logs in as the user of that `name`, by ZooKeeper's scheme `digest`. The password is shown nowhere. White space
    /// around it is left out, since files end in a new line. What is made by this handle is then the user's, and may
    /// be read by everybody.
    #[must_use]
    pub fn user(mut self, name: &str, password: impl Into<SecretString>) -> Self {
        let password = password.into();
        let user = format!("{name}:{}", password.expose_secret().trim());
        self.ensemble.user = Some(user.into());
        self
    }

    /// Keeps instances at `BASE/SERVICE/ID`. Default `/services`, as Spring Cloud has it.
    #[must_use]
    pub fn base(mut self, path: &str) -> Self {
        self.base = joined("", path);
        self
    }

    /// Writes metadata so that clients of Spring Cloud read it. Those of Curator itself then fail at every instance of
    /// the service, unless they have Spring Cloud's classes. Default: as a map, which they read as an `Object` or a
    /// `Map`, and not at all where there is none. Instances are read in either form.
    #[must_use]
    pub fn spring_cloud(mut self) -> Self {
        self.leases.payload = Payload::Spring;
        self
    }

    /// Opens sessions with `connector`: for certificates and other ways to log in. The time limits are set here.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.ensemble.connector = connector;
        self
    }

    /// The node that all services are below.
    fn root(&self) -> String {
        format!("{}{}", self.ensemble.chroot, self.base)
    }
}

impl Registry for ZooKeeper {
    fn name(&self) -> &str {
        &self.ensemble.name
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (zookeeper, service) = (self.clone(), service.to_owned());
        Box::pin(async move {
            if let Err(error) = zookeeper.ensemble.check_name(&service) {
                return error;
            }
            let session = match zookeeper.watching.session(&zookeeper.ensemble).await {
                Ok(session) => session,
                Err(error) => return error,
            };
            let root = zookeeper.root();
            let follow = Follow::new(zookeeper.ensemble, session, root, service, updates);
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
        let (zookeeper, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        Box::pin(async move {
            let (ensemble, root) = (&zookeeper.ensemble, zookeeper.root());
            let leases = &zookeeper.leases;
            leases
                .register(ensemble, &root, &service, &instance, ttl)
                .await
        })
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let (zookeeper, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        Box::pin(async move {
            let leases = &zookeeper.leases;
            leases
                .renew(&zookeeper.ensemble, &service, &instance, status)
                .await
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (zookeeper, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        Box::pin(async move {
            let (ensemble, root) = (&zookeeper.ensemble, zookeeper.root());
            let leases = &zookeeper.leases;
            leases
                .deregister(ensemble, &root, &service, &instance)
                .await
        })
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("ensemble", &self.ensemble.name)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

const BASE: &str = "/services";
