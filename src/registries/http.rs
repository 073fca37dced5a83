//! What the registries over HTTP share: requests, answers of a bounded size, and errors without secrets.

mod answer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};

#[cfg(any(feature = "etcd", feature = "kubernetes"))]
use crate::clock;
use crate::discovery::{ErrorKind, RegistryError};

#[cfg(any(feature = "etcd", feature = "kubernetes"))]
pub(super) use answer::{LONGEST_ANSWER, quoted};

/// A server and how to talk to it. `name`, all errors and `Debug` are free of secrets.
#[derive(Clone)]
pub(super) struct Http {
    name: Arc<str>,
    base: Url,
    client: Client,
    /// The user and password of the URL, as a header.
    basic: Option<HeaderValue>,
    token: Option<(HeaderName, SecretString)>,
    /// What no error may repeat, in every form in which it may come back.
    secrets: Vec<SecretString>,
}

impl Http {
    /// The server at `url`, whose user and password become a header; `what` it is, in a word.
    pub(super) fn new(what: &str, url: &str) -> Result<Self, RegistryError> {
        let written = shown(url);
        let url = Url::parse(url).map_err(|error| {
            wrong(
                what,
                format!("its URL `{written}` cannot be read: {error}; {WANTED}"),
            )
        })?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong(what, format!("its URL is `{written}`; {WANTED}")));
        }
        // The end of a password, taken for a path.
        let parts = [Some(url.path()), url.query(), url.fragment()];
        if parts.iter().flatten().any(|part| part.contains('@')) {
            let message = format!("its URL is `{written}`; {ESCAPED}");
            return Err(wrong(what, message));
        }
        let written = [url.username(), url.password().unwrap_or_default()].map(str::to_owned);
        // A registry is a neighbour: the proxies of the environment are for what is far away.
        let client = build(what, ClientBuilder::new().no_proxy())?;
        // The client moves the credentials out of the URL and into a header.
        let request = client.get(url).build();
        let request = request.map_err(|error| wrong(what, error.without_url().to_string()))?;
        let mut base = request.url().clone();
        // It leaves there what is no text, and the name would show it.
        if !base.username().is_empty() || base.password().is_some() {
            let message = "the user or password in its URL is no text once it is decoded";
            return Err(wrong(what, message));
        }
        base.set_query(None);
        base.set_fragment(None);
        let basic = request.headers().get(AUTHORIZATION).cloned();

        let mut http = Self {
            name: format!("{what} at {}", base.as_str().trim_end_matches('/')).into(),
            base,
            client,
            basic,
            token: None,
            secrets: Vec::new(),
        };
        let header = http.basic.as_ref().and_then(|basic| basic.to_str().ok());
        let encoded = header.and_then(|header| header.strip_prefix("Basic "));
        http.keep_out(encoded.unwrap_or_default().into());
        for secret in written {
            let meant = percent_decode_str(&secret).decode_utf8_lossy().into_owned();
            http.keep_out(meant.into());
            http.keep_out(secret.into());
        }
        Ok(http)
    }

    /// Replaces the client.
    pub(super) fn client(&mut self, builder: ClientBuilder) -> Result<(), RegistryError> {
        self.client = build(&self.name, builder)?;
        Ok(())
    }

    /// Talks through the client of `other`.
    #[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
    pub(super) fn share(&mut self, other: &Self) {
        self.client = other.client.clone();
    }

    /// Whether its URL has a user or password.
    #[cfg(any(feature = "etcd", feature = "kubernetes"))]
    pub(super) fn has_user(&self) -> bool {
        self.basic.is_some()
    }

    /// Sends `token` in `header` with every request.
    #[cfg(any(feature = "consul", feature = "etcd", feature = "kubernetes"))]
    pub(super) fn token(&mut self, header: HeaderName, token: SecretString) {
        self.keep_out(token.clone());
        self.token = Some((header, token));
    }

    #[cfg(feature = "consul")]
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A request to a path below the server's URL, given by its segments, which are escaped here.
    pub(super) fn request<'a>(
        &self,
        method: Method,
        path: impl IntoIterator<Item = &'a str>,
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client
            .request(method, url)
            .header(ACCEPT, "application/json")
    }

    /// Sends `request` and gives the answer, whatever its status, if it is read to the end within `limit`.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Response, RegistryError> {
        let answer = self.with_credentials(request)?.timeout(limit).send().await;
        answer.map_err(|error| self.broken(error))
    }

    /// Sends `request` and gives an answer that begins within `limit` and may go on for ever.
    #[cfg(any(feature = "etcd", feature = "kubernetes"))]
    pub(super) async fn open(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Response, RegistryError> {
        let answer = self.with_credentials(request)?.send();
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| self.broken(error)),
            () = clock::sleep(limit) => Err(self.error(ErrorKind::TimedOut, LATE)),
        }
    }

    /// The next bytes of an answer, or nothing at its end. Nothing is lost where it is dropped.
    #[cfg(any(feature = "etcd", feature = "kubernetes"))]
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, RegistryError> {
        let chunk = response.chunk().await;
        chunk.map_err(|error| self.broken(error))
    }

    fn with_credentials(
        &self,
        mut request: RequestBuilder,
    ) -> Result<RequestBuilder, RegistryError> {
        if let Some(basic) = &self.basic {
            request = request.header(AUTHORIZATION, basic);
        }
        if let Some((header, token)) = &self.token {
            let mut value = HeaderValue::from_str(token.expose_secret()).map_err(|_| {
                let message = "the token has characters that cannot be sent";
                self.error(ErrorKind::Denied, message)
            })?;
            value.set_sensitive(true);
            request = request.header(header, value);
        }
        Ok(request)
    }

    /// An error of this server. `message` must hold no secret.
    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> RegistryError {
        RegistryError::new(self.name.clone(), kind, message)
    }

    fn broken(&self, error: reqwest::Error) -> RegistryError {
        let (kind, message) = if error.is_timeout() {
            (ErrorKind::TimedOut, LATE)
        } else if error.is_connect() {
            (ErrorKind::Unreachable, "no connection")
        } else {
            (ErrorKind::Unreachable, "the exchange broke off")
        };
        self.error(kind, message).caused_by(error.without_url())
    }

    /// Lets no error repeat `secret`.
    pub(super) fn keep_out(&mut self, secret: SecretString) {
        if !secret.expose_secret().is_empty() {
            self.secrets.push(secret);
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// URLs as they were written, without what may be a secret: user, password and query.
pub(super) fn shown(url: &str) -> String {
    let (hidden, rest) = match url.rsplit_once('@') {
        Some((_, place)) => ("…@", place),
        None => ("", url),
    };
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{hidden}{place}")
}

fn build(registry: &str, builder: ClientBuilder) -> Result<Client, RegistryError> {
    let builder = builder
        // A redirect would carry the token to whoever is named there.
        .redirect(redirect::Policy::none())
        // Eureka refuses what accepts an encoding but not gzip.
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .connect_timeout(CONNECT);
    let client = builder.build();
    client.map_err(|error| wrong(registry, "no client can be built").caused_by(error))
}

/// An error for settings with which nothing can be sent at all.
pub(super) fn wrong(registry: &str, message: impl Into<String>) -> RegistryError {
    RegistryError::new(registry, ErrorKind::Unsupported, message)
}

/// How long a request that does not block may take: the 8 s of Eureka's own client, rounded.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const LATE: &str = "no answer in time";
/// What a URL should look like.
const WANTED: &str = "write it as http://HOST:PORT or https://HOST:PORT";
/// What would end the host and its port, or the whole URL.
pub(super) const ESCAPED: &str =
    "in a user or password, write / as %2F, ? as %3F, # as %23 and a comma as %2C";
const CONNECT: Duration = Duration::from_secs(5);
