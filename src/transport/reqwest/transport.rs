use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ::reqwest::header::{HOST, HeaderValue};
use ::reqwest::{Client, ClientBuilder, Request, Response, Url};

use super::ClientError;
use super::outgoing::Outgoing;
use crate::classify::{Classify, Outcome};
use crate::client::Transport;
use crate::clock;
use crate::deadline::Deadline;
use crate::discovery::{BoxFuture, Instance};
use crate::error::{Error, Reason, Rejected};
use crate::layers::retry::{Decision, Rules};
use crate::transport::http::deadline::SendDeadlineLayer;
use crate::transport::http::{Attempt, Attempts, HttpRules};

/// Sends `reqwest` requests to instances.
#[derive(Clone)]
pub struct ReqwestTransport {
    client: Client,
    rules: Arc<HttpRules>,
    tls: Option<TlsBuilder>,
    deadlines: Option<SendDeadlineLayer>,
}

type TlsBuilder = Arc<dyn Fn() -> ClientBuilder + Send + Sync>;

impl ReqwestTransport {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            rules: Arc::default(),
            tls: None,
            deadlines: None,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn outgoing(&self, request: Request) -> Outgoing {
        Outgoing::new(request, self.rules.kept_bytes())
    }

    pub(super) fn set_rules(&mut self, rules: HttpRules) {
        self.rules = Arc::new(rules);
    }

    pub(super) fn set_tls(&mut self, builder: impl Fn() -> ClientBuilder + Send + Sync + 'static) {
        self.tls = Some(Arc::new(builder));
    }

    pub(super) fn set_deadlines(&mut self, layer: SendDeadlineLayer) {
        self.deadlines = Some(layer);
    }

    /// Sends `request`, which says what its attempt has left; its answer's body has until `deadline`.
    fn send(
        &self,
        client: Client,
        mut request: Request,
        deadline: Option<Deadline>,
    ) -> BoxFuture<'static, Result<Response, ClientError>> {
        if let Some(layer) = &self.deadlines {
            let attempt = Deadline::current().into_iter().chain(deadline).min();
            let written = attempt.map_or(Ok(()), |it| layer.write(it, request.headers_mut()));
            if let Err(rejected) = written {
                return Box::pin(async { Err(rejected.into()) });
            }
        }
        send(client, request, deadline)
    }

    /// Aims `request` at the endpoint, and gives the client to send it with.
    fn aim(&self, endpoint: &Endpoint, request: &mut Request) -> Result<Client, ClientError> {
        let instance = &endpoint.instance;
        let host = host_header(request.url());
        if let (Some(host), false) = (host, request.headers().contains_key(HOST)) {
            request.headers_mut().insert(HOST, host);
        }
        let url = request.url_mut();
        if instance.secure || url.scheme() == "https" {
            let client = endpoint.tls_client(self.tls.as_ref(), url)?;
            // Without a port of its own the URL takes the one that the client's resolver gives.
            let aimed = url.set_scheme("https").and_then(|()| url.set_port(None));
            return aimed
                .map(|()| client)
                .map_err(|()| bad_address(instance).into());
        }
        let aimed = match instance.host.parse::<IpAddr>() {
            Ok(ip) => url.set_ip_host(ip),
            Err(_) => url.set_host(Some(&instance.host)).map_err(drop),
        };
        aimed
            .and_then(|()| url.set_port(Some(instance.port)))
            .map_err(|()| bad_address(instance))?;
        Ok(self.client.clone())
    }
}

impl Transport for ReqwestTransport {
    type Request = Outgoing;
    type Response = Response;
    type Error = ::reqwest::Error;
    type Endpoint = Endpoint;
    type Future = BoxFuture<'static, Result<Response, ClientError>>;

    fn service<'a>(&self, outgoing: &'a Outgoing) -> Result<&'a str, Rejected> {
        let host = outgoing.request.url().host_str().unwrap_or_default();
        // An IPv6 address has brackets.
        if host.is_empty() || host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return Err(Rejected::new("client", Reason::NoService).named(host));
        }
        Ok(host)
    }

    fn replay(&self, outgoing: &Outgoing) -> Option<Outgoing> {
        outgoing.replay()
    }

    fn mark(&self, outgoing: &mut Outgoing, number: u32) {
        let attempt = Attempt {
            number,
            hedge: false,
        };
        self.rules.announce(attempt, outgoing.request.headers_mut());
    }

    fn mark_response(&self, response: &mut Response, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }

    fn is_failure(&self, result: Result<&Response, &ClientError>) -> bool {
        Rules::is_failure(&*self.rules, result)
    }

    fn decide(&self, outgoing: &Outgoing, result: Result<&Response, &ClientError>) -> Decision {
        match result {
            _ if !outgoing.can_replay() => Decision::Done,
            // Another instance may have a better one.
            Err(Error::Rejected(rejected)) if rejected.reason() == Reason::BadAddress => {
                true.into()
            }
            result => Rules::decide(&*self.rules, &outgoing.request, result),
        }
    }

    fn classify(&self, result: Result<&Response, &ClientError>) -> Outcome {
        match result {
            // It was this instance that was asked, or should have been.
            Err(Error::Rejected(_)) => Outcome::Failure,
            result => Classify::classify(&*self.rules, result),
        }
    }

    fn endpoint(&self, instance: &Arc<Instance>) -> Endpoint {
        Endpoint {
            instance: instance.clone(),
            tls: Arc::default(),
        }
    }

    fn call(
        &self,
        endpoint: &Endpoint,
        outgoing: Outgoing,
        deadline: Option<Deadline>,
    ) -> Self::Future {
        let mut request = outgoing.into_request();
        match self.aim(endpoint, &mut request) {
            Ok(client) => self.send(client, request, deadline),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn call_as_is(&self, outgoing: Outgoing, deadline: Option<Deadline>) -> Self::Future {
        self.send(self.client.clone(), outgoing.into_request(), deadline)
    }
}

impl fmt::Debug for ReqwestTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestTransport")
            .field("rules", &self.rules)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// An instance, and the client that speaks TLS with it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    /// Made by the first call that needs it: it holds a table of root certificates.
    tls: Arc<OnceLock<Client>>,
}

impl Endpoint {
    fn tls_client(&self, builder: Option<&TlsBuilder>, url: &Url) -> Result<Client, ClientError> {
        if let Some(client) = self.tls.get() {
            return Ok(client.clone());
        }
        let Some(builder) = builder else {
            let service = url.host_str().unwrap_or_default();
            return Err(Rejected::new("client", Reason::TlsNotSetUp)
                .named(service)
                .into());
        };
        let address = InstanceAddress(self.instance.clone());
        let client = builder().dns_resolver(Arc::new(address)).build();
        let client = client.map_err(Error::Inner)?;
        Ok(self.tls.get_or_init(|| client).clone())
    }
}

/// Resolves every name to the address of one instance, so that the URL can keep the name that the certificate has.
struct InstanceAddress(Arc<Instance>);

impl Resolve for InstanceAddress {
    fn resolve(&self, _: Name) -> Resolving {
        let instance = self.0.clone();
        Box::pin(async move {
            let host = &*instance.host;
            let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
                Ok(ip) => vec![SocketAddr::new(ip, instance.port)],
                Err(_) => tokio::net::lookup_host((host, instance.port))
                    .await?
                    .collect(),
            };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn send(
    client: Client,
    mut request: Request,
    deadline: Option<Deadline>,
) -> BoxFuture<'static, Result<Response, ClientError>> {
    if let Some(deadline) = deadline {
        // Bounds the body too, which is read after every layer is done.
        *request.timeout_mut() = Some(deadline.remaining(clock::now()));
    }
    Box::pin(async move {
        let result = client.execute(request).await;
        result.map_err(|error| match deadline {
            // The timer that `reqwest` was given may go off just before that of the timeout layer.
            Some(deadline) if error.is_timeout() && deadline.has_passed(clock::now()) => {
                Rejected::new("timeout", Reason::DeadlineExceeded).into()
            }
            _ => Error::Inner(without_secrets(error)),
        })
    })
}

/// Takes out of the error's URL what may be a secret: the password and the query.
pub(super) fn without_secrets(mut error: ::reqwest::Error) -> ::reqwest::Error {
    if let Some(url) = error.url_mut() {
        url.set_query(None);
        // A URL of `http` can have a user.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    error
}

/// The host as the caller wrote it.
fn host_header(url: &Url) -> Option<HeaderValue> {
    let host = url.host_str()?;
    let host = match url.port() {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
        None => HeaderValue::try_from(host),
    };
    host.ok()
}

fn bad_address(instance: &Instance) -> Rejected {
    Rejected::new("client", Reason::BadAddress)
        .named(&*instance.id)
        .caused_by(format!("`{instance}` cannot be the host of a URL"))
}
