//! The thick client around a [`reqwest::Client`]. See the [guide](crate::docs::client).
//!
//! Call a service by the name that it has in the registry:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::get};
//! use buttress::registries::memory::Memory;
//! use buttress::transport::reqwest::Client;
//! use buttress::{Instance, Registry, Resolver};
//!
//! // An instance of the service `passengers`, and a registry that knows it.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let port = listener.local_addr()?.port();
//! let app = Router::new().route("/passengers/{id}", get(|| async { "Ada" }));
//! tokio::spawn(async move { axum::serve(listener, app).await });
//! let registry = Memory::new();
//! let instance = Instance::new("passengers-1", "127.0.0.1", port);
//! registry.register("passengers", &instance, std::time::Duration::from_secs(30)).await?;
//!
//! let client = Client::new(reqwest::Client::new(), Resolver::new(registry));
//! let answer = client.get("http://passengers/passengers/7").send().await?;
//! assert_eq!(answer.text().await?, "Ada");
//! # Ok(())
//! # }
//! ```
//!
//! The URL's host is the service, in lower case as URLs have it: the case of its name does not matter, here and in the
//! registries of this crate. A port in it is ignored, since each instance has its own. The peer sees the host of
//! the URL in its `Host` header, unless the request has one already.
//!
//! Redirects are followed by the `reqwest::Client`, without discovery and with the same `Host` header. It does not tell
//! where a connection failed: a `POST` that is redirected to where nobody listens counts as never sent, and is sent
//! again. Where peers redirect, forbid it: `reqwest::Client::builder().redirect(reqwest::redirect::Policy::none())`.
//!
//! # TLS
//!
//! A call is made over TLS if its URL says `https` or its instance is [`secure`](crate::Instance). The certificate must
//! be valid for the host of the URL, whatever the registry says: who can write to the registry can thus not take over
//! the traffic. `reqwest` takes that name from its URL and has one table of addresses for a whole client, so each
//! instance gets a client of its own, built by [`Client::tls`].

mod outgoing;
mod request;
mod rules;
mod transport;

use ::reqwest::{Method, Response};
use tower::{Layer, ServiceExt};

use crate::client::{self, Policy, ServiceHandle};
use crate::discovery::Resolver;
use crate::error::Error;
use crate::layers::timeout::TimeoutLayer;
use crate::observe::Observer;
use crate::transport::http::HttpRules;
use crate::transport::http::deadline::SendDeadlineLayer;

use self::outgoing::Outgoing;
pub use self::request::RequestBuilder;
pub use self::transport::ReqwestTransport;

/// What a call ends with when it fails: a refusal, or the error of the last attempt.
pub type ClientError = Error<::reqwest::Error>;

/// A `reqwest` client that calls services by name. A cheap clone shares everything.
///
/// Settings come before the first call: a setter gives a client with a state of its own. It is a
/// `tower::Service<reqwest::Request>` too.
#[derive(Clone, Debug)]
pub struct Client {
    inner: client::Client<ReqwestTransport>,
}

impl Client {
    /// A client that finds instances through `resolver` and sends requests with `client`.
    ///
    /// Leave the timeouts to the [`Policy`]; those of `client` apply as well.
    pub fn new(client: ::reqwest::Client, resolver: Resolver) -> Self {
        Self {
            inner: client::Client::new(ReqwestTransport::new(client), resolver),
        }
    }

    /// Sets the policy of `service`.
    #[must_use]
    pub fn policy(self, service: impl AsRef<str>, policy: Policy) -> Self {
        let host = service.as_ref().to_ascii_lowercase();
        self.map(|inner| inner.policy(host, policy))
    }

    /// Sets the policy of every service that has none of its own.
    #[must_use]
    pub fn default_policy(self, policy: Policy) -> Self {
        self.map(|inner| inner.default_policy(policy))
    }

    /// Sets which answers are failures and which are tried again.
    #[must_use]
    pub fn http_rules(self, rules: HttpRules) -> Self {
        self.map(|inner| inner.map_transport(|transport| transport.set_rules(rules)))
    }

    /// Says in each attempt's headers how long it has, by the settings of `layer`. By default peers are told nothing.
    /// Where `reqwest` follows a redirect it says the same again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use buttress::Resolver;
    /// use buttress::registries::memory::Memory;
    /// use buttress::transport::http::deadline::SendDeadlineLayer;
    /// use buttress::transport::reqwest::Client;
    ///
    /// let client = Client::new(reqwest::Client::new(), Resolver::new(Memory::new()))
    ///     .send_deadlines(SendDeadlineLayer::new());
    /// # }
    /// ```
    #[must_use]
    pub fn send_deadlines(self, layer: SendDeadlineLayer) -> Self {
        self.map(|inner| inner.map_transport(|transport| transport.set_deadlines(layer)))
    }

    /// Lets requests to IP addresses and to names that no registry knows out as they are; see
    /// [`client::Client::pass_through`].
    #[must_use]
    pub fn pass_through(self) -> Self {
        self.map(client::Client::pass_through)
    }

    /// Makes calls over TLS possible. `builder` gives the settings of each instance's client: roots, identity, pool.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use buttress::Resolver;
    /// use buttress::registries::memory::Memory;
    /// use buttress::transport::reqwest::Client;
    ///
    /// let builder = || reqwest::Client::builder().https_only(true);
    /// let client = Client::new(reqwest::Client::new(), Resolver::new(Memory::new())).tls(builder);
    /// # }
    /// ```
    #[must_use]
    pub fn tls(
        self,
        builder: impl Fn() -> ::reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.map(|inner| inner.map_transport(|transport| transport.set_tls(builder)))
    }

    /// Tells `observer` of what happens in every layer of every service.
    #[must_use]
    pub fn observe(self, observer: impl Into<Observer>) -> Self {
        self.map(|inner| inner.observe(observer))
    }

    /// Begins a `GET` request.
    pub fn get(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Begins a `POST` request. It is sent once, save where the connection failed, unless it has an `Idempotency-Key`.
    pub fn post(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Begins a `PUT` request.
    pub fn put(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Begins a `PATCH` request. It is sent once, as [`post`](Self::post) is.
    pub fn patch(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Begins a `DELETE` request.
    pub fn delete(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Begins a `HEAD` request.
    pub fn head(&self, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Begins a request.
    pub fn request(&self, method: Method, url: impl ::reqwest::IntoUrl) -> RequestBuilder {
        let request = self.inner.transport().client().request(method, url);
        RequestBuilder::new(self.clone(), request)
    }

    /// Sends `request` to the service that its URL names. Its own timeout, if it has one, bounds the whole call.
    ///
    /// # Errors
    ///
    /// A refusal, or the error of the last attempt. A status such as 503 is an answer and no error.
    pub async fn execute(&self, request: ::reqwest::Request) -> Result<Response, ClientError> {
        let Some(&limit) = request.timeout() else {
            return self.inner.send(self.outgoing(request)).await;
        };
        let service = request.url().host_str().unwrap_or_default();
        let limited = TimeoutLayer::new(limit)
            .name(service)
            .observe(self.inner.observer().clone());
        let outgoing = self.outgoing(request);
        limited.layer(self.inner.clone()).oneshot(outgoing).await
    }

    /// What protects the calls to `service`, to be read and steered: its breaker, its bulkhead, its instances.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, if the service was not called before: a task watches the registry.
    #[track_caller]
    pub fn service(&self, service: &str) -> ServiceHandle {
        self.inner.service(&service.to_ascii_lowercase())
    }

    fn outgoing(&self, request: ::reqwest::Request) -> Outgoing {
        self.inner.transport().outgoing(request)
    }

    fn map(
        self,
        change: impl FnOnce(client::Client<ReqwestTransport>) -> client::Client<ReqwestTransport>,
    ) -> Self {
        Self {
            inner: change(self.inner),
        }
    }
}

impl tower::Service<::reqwest::Request> for Client {
    type Response = Response;
    type Error = ClientError;
    type Future = crate::discovery::BoxFuture<'static, Result<Response, ClientError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), ClientError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::reqwest::Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.execute(request).await })
    }
}
