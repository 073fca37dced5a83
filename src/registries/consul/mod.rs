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

#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod health;
mod pace;
mod registration;

use std::convert::Infallible;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{ClientBuilder, Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use self::health::Entry;
use self::pace::Pace;
use self::registration::{CheckUpdate, Service};
use super::http::{Http, PATIENCE};
use crate::clock;
use crate::discovery::{
    BoxFuture, ErrorKind, Instance, Registry, RegistryError, Renewal, Status, Updates,
};

/// A Consul agent. A cheap clone talks to the same one.
#[derive(Clone, Debug)]
pub struct Consul {
    http: Http,
}

impl Consul {
    /// The agent at `url`, such as `http://127.0.0.1:8500`. A user and password in it are sent as a header, for an
    /// agent behind a proxy that asks for them, and shown nowhere. For `https`, enable a TLS feature of `reqwest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if `url` is no URL of `http` or `https`.
    pub fn new(url: &str) -> Result<Self, RegistryError> {
        Http::new("consul", url).map(|http| Self { http })
    }

    /// Sends `token` with every request. It is shown nowhere. White space around it is left out, since files end in a
    /// new line.
    #[must_use]
    pub fn token(mut self, token: impl Into<SecretString>) -> Self {
        let token = token.into();
        let header = HeaderName::from_static("x-consul-token");
        self.http.token(header, token.expose_secret().trim().into());
        self
    }

    /// Talks through a client built by `builder`: for certificates, proxies and the like. Redirects stay refused and
    /// the time limits are set here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if it cannot be built.
    pub fn client(mut self, builder: ClientBuilder) -> Result<Self, RegistryError> {
        self.http.client(builder)?;
        Ok(self)
    }

    async fn follow(&self, service: &str, updates: &Updates) -> Result<Infallible, RegistryError> {
        let mut index = 0;
        let mut known: Option<Vec<Instance>> = None;
        let mut pace = Pace::default();
        loop {
            clock::until(pace.next(clock::now())).await;
            let answer = self.health(service, index).await?;
            index = health::next_index(index, answer.index);
            if known.as_ref() == Some(&answer.instances) {
                pace.unchanged();
                updates.confirmed().await;
                continue;
            }
            if !answer.led && loses(known.as_deref(), &answer.instances) {
                let message = "it has no leader and does not name all instances";
                let error = self.http.error(ErrorKind::Failed, message);
                if known.is_none() {
                    return Err(error);
                }
                // Another watch would not know who was there. The leader to come need not move the index.
                updates.failed(error).await;
                pace.unchanged();
                index = 0;
                continue;
            }
            pace.changed();
            updates.instances(answer.instances.clone()).await;
            known = Some(answer.instances);
        }
    }

    /// Asks who is there: at once if `index` is 0, else as soon as the state has moved beyond it, or in 5 minutes.
    async fn health(&self, service: &str, index: u64) -> Result<Answer, RegistryError> {
        let (beyond, limit) = (index.to_string(), format!("{}s", WAIT.as_secs()));
        let blocking = [("index", &*beyond), ("wait", &*limit)];
        let (query, patience): (&[_], _) = match index {
            0 => (&[], PATIENCE),
            // The server adds up to a sixteenth of the wait, so that not all return at once.
            _ => (&blocking, WAIT + WAIT / 16 + PATIENCE),
        };
        let path = ["v1", "health", "service", service];
        let request = self.http.request(Method::GET, path, query);
        let response = self.http.send(request, patience).await?;
        if !response.status().is_success() {
            return Err(self.http.refused(response).await);
        }
        let headers = response.headers();
        let Some(index) = header(headers, "x-consul-index").and_then(|text| text.parse().ok())
        else {
            let message =
                "its answer has no X-Consul-Index, without which there is nothing to wait for";
            return Err(self.http.error(ErrorKind::Malformed, message));
        };
        // Of the streaming backend, the header means nothing: it is always `false`.
        let led = header(headers, "x-consul-knownleader") != Some("false")
            || header(headers, "x-consul-query-backend") == Some("streaming");
        let filtered = header(headers, "x-consul-results-filtered-by-acls") == Some("true");
        let closed = header(headers, "x-consul-default-acl-policy") == Some("deny");
        let entries: Vec<Entry> = self.http.json(response).await?;

        // Without the right to read, Consul answers with an empty list.
        if entries.is_empty() && filtered {
            let message = format!("the token may not read the service `{service}` or its nodes");
            return Err(self.http.error(ErrorKind::Denied, message));
        }
        if entries.is_empty() && closed && !self.http.has_token() {
            let message = format!(
                "no instance of `{service}` may be seen, or there is none: \
                it denies by default, and no token was given"
            );
            return Err(self.http.error(ErrorKind::Denied, message));
        }
        Ok(Answer {
            index,
            led,
            instances: health::instances(entries),
        })
    }

    async fn put(&self, request: RequestBuilder) -> Result<Found, RegistryError> {
        let response = self.http.send(request, PATIENCE).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(Found::No),
            status if status.is_success() => Ok(Found::Yes),
            _ => match self.http.refused(response).await {
                error if error.message().contains(FORGOTTEN) => Ok(Found::No),
                error => Err(error),
            },
        }
    }

    fn update(&self, check: &str, update: &CheckUpdate) -> RequestBuilder {
        let path = ["v1", "agent", "check", "update", check];
        self.http.request(Method::PUT, path, &[]).json(update)
    }
}

impl Registry for Consul {
    fn name(&self) -> &str {
        self.http.name()
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
        let path = ["v1", "agent", "service", "register"];
        let query = [("replace-existing-checks", "true")];
        let request = self.http.request(Method::PUT, path, &query);
        let request = request.json(&Service::new(service, instance, ttl));
        let consul = self.clone();
        Box::pin(async move {
            match consul.put(request).await? {
                Found::Yes => Ok(()),
                Found::No => Err(consul
                    .http
                    .error(ErrorKind::Failed, "it answered 404 Not Found")),
            }
        })
    }

    fn renew(
        &self,
        _service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let requests = [
            self.update(
                &registration::lease(&instance.id),
                &CheckUpdate::new(Status::Up),
            ),
            self.update(
                &registration::state(&instance.id),
                &CheckUpdate::new(status),
            ),
        ];
        let consul = self.clone();
        Box::pin(async move {
            for request in requests {
                if consul.put(request).await? == Found::No {
                    return Ok(Renewal::Unknown);
                }
            }
            Ok(Renewal::Renewed)
        })
    }

    fn deregister(
        &self,
        _service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let path = ["v1", "agent", "service", "deregister", &*instance.id];
        let request = self.http.request(Method::PUT, path, &[]);
        let consul = self.clone();
        Box::pin(async move { consul.put(request).await.map(|_| ()) })
    }
}

struct Answer {
    index: u64,
    led: bool,
    instances: Vec<Instance>,
}

/// Whether `answer` lacks what is known; before anything is, it must name someone.
fn loses(known: Option<&[Instance]>, answer: &[Instance]) -> bool {
    match known {
        None => answer.is_empty(),
        Some(known) => {
            let named = |id: &str| answer.iter().any(|instance| instance.id == id);
            !known.iter().all(|instance| named(&instance.id))
        }
    }
}

/// Whether the agent knows what was named.
#[derive(PartialEq)]
enum Found {
    Yes,
    No,
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How long a blocking query waits for a change: Consul's own default, half of what it allows.
const WAIT: Duration = Duration::from_secs(300);
/// How agents before 1.11 say, with a status of 500, that they do not know a check.
const FORGOTTEN: &str = "does not have associated TTL";
