//! Discovery and registration with a Consul agent. See the [guide](crate::docs::registries::consul).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::discovery::Registration;
//! use buttress::registries::consul::Consul;
//! use buttress::{Instance, Resolver};
//!
//! let consul = Consul::new("http://127.0.0.1:8500")?;
//! let here = Instance::new("orders-1", "10.0.0.7", 8080);
//! let registered = Registration::new(consul.clone(), "orders", here).start();
//! let stock = Resolver::new(consul).watch("stock").resolved().await?;
//! println!("{} instances of stock", stock.instances().len());
//! registered.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod agents;
mod env;
mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod health;
mod pace;
mod query;
mod registration;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use self::agents::{Agents, Token};
use self::query::{Query, Reads};
use self::registration::{CheckUpdate, Service};
use super::http::Http;
use super::servers::{Order, Servers, Turn};
use crate::discovery::{
    BoxFuture, ErrorKind, Instance, Registry, RegistryError, Renewal, Status, Updates,
};

/// Consul, through one of its agents. A cheap clone talks to the same ones.
#[derive(Clone, Debug)]
pub struct Consul {
    agents: Agents,
    query: Query,
}

impl Consul {
    /// The agent at `urls`, such as `http://127.0.0.1:8500`; or several of one cluster, separated by commas, of which
    /// the first that answers is asked. A user and password in a URL are sent as a header, for an agent behind a proxy
    /// that asks for them, and shown nowhere. For `https`, enable a TLS feature of `reqwest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if one is no URL of `http` or `https`.
    pub fn new(urls: &str) -> Result<Self, RegistryError> {
        let servers = Servers::new("consul", urls, Order::Written)?;
        Ok(Self {
            agents: Agents {
                servers,
                token: None,
            },
            query: Query::default(),
        })
    }

    /// As the environment has it, in the variables of Consul's own tools: `CONSUL_HTTP_ADDR` (a URL or `HOST:PORT`,
    /// by default `127.0.0.1:8500`; several are separated by commas), `CONSUL_HTTP_SSL`, `CONSUL_HTTP_TOKEN` or
    /// `CONSUL_HTTP_TOKEN_FILE`, which goes before it, `CONSUL_NAMESPACE`, `CONSUL_PARTITION`. Certificates are a
    /// matter of [`client`](Self::client).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if an address makes no URL of `http` or `https`.
    pub fn from_env() -> Result<Self, RegistryError> {
        env::consul(|name| std::env::var(name).ok())
    }

    /// Sends `token` with every request. It is shown nowhere. White space around it is left out, since files end in a
    /// new line.
    #[must_use]
    pub fn token(mut self, token: impl Into<SecretString>) -> Self {
        let token = token.into();
        self.agents.token = Some(Token::Text(token.expose_secret().trim().into()));
        self
    }

    /// As [`token`](Self::token), with what is in the file at `path`, which is read for every request: whoever renews
    /// the token need not restart anything.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.agents.token = Some(Token::File(Arc::new(path.into())));
        self
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.agents.servers.client(builder)?;
        Ok(self)
    }

    /// Only sees instances to which `expression` applies, in Consul's language of filters:
    /// `Service.Meta.version == "7"`. Another call replaces it.
    #[must_use]
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.query.filter = Some(expression.into());
        self
    }

    /// Only sees instances that have this tag; called again, that one too.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.query.tags.push(tag.into());
        self
    }

    /// Sees the instances of another datacenter than the agent's own. For more than one, chain them:
    /// `Resolver::new(consul.clone()).or(consul.datacenter("dc2"))`. An instance is registered in the agent's own.
    #[must_use]
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.query.datacenter = Some(name.into());
        // One that cannot be reached looks like a fault of the agent.
        self.agents.servers = self.agents.servers.apart();
        self
    }

    /// Reads and registers in this namespace, which Consul Enterprise has.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.query.namespace = Some(name.into());
        self
    }

    /// Reads and registers in this admin partition, which Consul Enterprise has.
    #[must_use]
    pub fn partition(mut self, name: impl Into<String>) -> Self {
        self.query.partition = Some(name.into());
        self
    }

    /// Calls instances at their tagged address of this name, such as `wan` or `lan_ipv6`, where they have one.
    #[must_use]
    pub fn address(mut self, tag: impl Into<String>) -> Self {
        self.query.address = Some(tag.into());
        self
    }

    /// Lets any server answer, not only the leader: less load on that one, and answers without it. What is older than
    /// `oldest`, or has no leader behind it, may add instances but neither loses any nor counts as a confirmation.
    #[must_use]
    pub fn stale(mut self, oldest: Duration) -> Self {
        self.query.reads = Reads::Stale(oldest);
        self
    }

    /// Lets the agent answer from its cache, which it keeps up to date in the background, whoever asks. An answer of a
    /// cache that lost its servers longer ago than `oldest` is taken as with [`stale`](Self::stale).
    #[must_use]
    pub fn cached(mut self, oldest: Duration) -> Self {
        self.query.reads = Reads::Cached(oldest);
        self
    }

    /// The path and query at `agent`, in the namespace and partition.
    fn request(&self, agent: &Http, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let query = [query, &self.query.place()].concat();
        agent.request(Method::PUT, path.iter().copied(), &query)
    }

    async fn keep(&self, id: &str, status: Status) -> Result<Renewal, RegistryError> {
        let checks = &[
            (registration::lease(id), CheckUpdate::new(Status::Up)),
            (registration::state(id), CheckUpdate::new(status)),
        ];
        let keep = |turn: Turn| async move {
            for (check, update) in checks {
                let path = ["v1", "agent", "check", "update", check];
                let request = self.request(&turn.http, &path, &[]).json(update);
                if put(&turn, request).await? == Found::No {
                    return Ok(Renewal::Unknown);
                }
            }
            Ok(Renewal::Renewed)
        };
        self.agents.each(keep).await
    }

    /// Asks one agent after another until one knows it: the one that was told need not be the one that answers now.
    async fn take_out(&self, id: &str) -> Result<(), RegistryError> {
        let path = ["v1", "agent", "service", "deregister", id];
        let mut failure = None;
        for turn in self.agents.turns()? {
            match put(&turn, self.request(&turn.http, &path, &[])).await {
                Ok(Found::Yes) => return Ok(()),
                Ok(Found::No) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Registry for Consul {
    fn name(&self) -> &str {
        self.agents.servers.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (consul, service) = (self.clone(), service.to_owned());
        Box::pin(async move {
            match consul.follow(&service, &updates).await {
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
        let (consul, service, instance) = (self.clone(), service.to_owned(), instance.clone());
        Box::pin(async move {
            let service = &Service::new(&service, &instance, ttl);
            let path = &["v1", "agent", "service", "register"];
            let query = &[("replace-existing-checks", "true")];
            let consul = &consul;
            let register = |turn: Turn| async move {
                let request = consul.request(&turn.http, path, query).json(service);
                match put(&turn, request).await? {
                    Found::Yes => Ok(()),
                    Found::No => {
                        let message = "it answered 404 Not Found";
                        Err(turn.http.error(ErrorKind::Failed, message))
                    }
                }
            };
            consul.agents.each(register).await
        })
    }

    fn renew(
        &self,
        _service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let (consul, id) = (self.clone(), instance.id.clone());
        Box::pin(async move { consul.keep(&id, status).await })
    }

    fn deregister(
        &self,
        _service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (consul, id) = (self.clone(), instance.id.clone());
        Box::pin(async move { consul.take_out(&id).await })
    }
}

/// Whether the agent knows what was named.
#[derive(PartialEq)]
enum Found {
    Yes,
    No,
}

async fn put(turn: &Turn, request: RequestBuilder) -> Result<Found, RegistryError> {
    let response = turn.http.send(request, turn.limit).await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(Found::No),
        status if status.is_success() => Ok(Found::Yes),
        _ => match turn.http.refused(response).await {
            error if error.message().contains(FORGOTTEN) => Ok(Found::No),
            error => Err(error),
        },
    }
}

/// How agents before 1.11 say, with a status of 500, that they do not know a check.
const FORGOTTEN: &str = "does not have associated TTL";
