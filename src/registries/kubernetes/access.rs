use std::path::PathBuf;

use reqwest::header::AUTHORIZATION;
use reqwest::{Certificate, ClientBuilder, Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use super::wire::{List, Trouble};
use crate::discovery::{ErrorKind, RegistryError};
use crate::registries::http::{Http, PATIENCE, quoted, wrong};
use crate::registries::lines::LineStream;

/// The API server, and how it knows us.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) http: Http,
    pub(super) token: Token,
}

#[derive(Clone, Debug)]
pub(super) enum Token {
    None,
    Given(SecretString),
    /// Read before each request, since it is replaced before it expires.
    File(PathBuf),
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What was asked for is no longer known: list again.
    Gone(RegistryError),
    Error(RegistryError),
}

impl Access {
    pub(super) fn new(url: &str) -> Result<Self, RegistryError> {
        let http = Http::new("kubernetes", url)?;
        if http.has_user() {
            let message = "its URL has a user or password; it knows us by `Kubernetes::token`";
            return Err(wrong(http.name(), message));
        }
        let token = Token::None;
        let mut access = Self { http, token };
        access.http.client(builder())?;
        Ok(access)
    }

    /// Trusts the certificates that those of `pem` have signed, and no others.
    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), RegistryError> {
        let all = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if all.is_empty() {
            return Err(wrong(
                self.http.name(),
                "the CA has no certificate in PEM form",
            ));
        }
        self.http.client(builder().tls_certs_only(all))
    }

    /// A page of the slices that `query` selects.
    pub(super) async fn list(
        &self,
        namespace: &str,
        query: &[(&str, &str)],
    ) -> Result<List, Refusal> {
        let http = self.http().await?;
        let request = http.request(Method::GET, path(namespace), query);
        let response = http.send(request, PATIENCE).await?;
        if !response.status().is_success() {
            return Err(refused(&http, response, "list", namespace).await);
        }
        Ok(http.json(response).await?)
    }

    /// A watch that has begun.
    pub(super) async fn watch(
        &self,
        namespace: &str,
        query: &[(&str, &str)],
    ) -> Result<LineStream, Refusal> {
        let http = self.http().await?;
        let request = http.request(Method::GET, path(namespace), query);
        let response = http.open(request, PATIENCE).await?;
        if !response.status().is_success() {
            return Err(refused(&http, response, "watch", namespace).await);
        }
        Ok(LineStream::new(http, response))
    }

    /// With the token as it is now.
    async fn http(&self) -> Result<Http, RegistryError> {
        let mut http = self.http.clone();
        let token = match &self.token {
            Token::None => return Ok(http),
            Token::Given(token) => token.clone(),
            Token::File(path) => {
                let path = path.clone();
                let read = move || std::fs::read_to_string(&path).map_err(|error| (path, error));
                let read = tokio::task::spawn_blocking(read).await;
                match read.map_err(|error| http.error(ErrorKind::Failed, error.to_string()))? {
                    Ok(token) => token.into(),
                    Err((path, error)) => {
                        let message = format!("cannot read the token in {}", path.display());
                        return Err(http.error(ErrorKind::Denied, message).caused_by(error));
                    }
                }
            }
        };
        let token = token.expose_secret().trim();
        http.keep_out(token.into());
        http.token(AUTHORIZATION, format!("Bearer {token}").into());
        Ok(http)
    }
}

/// What the server says in a watch instead of an event.
pub(super) fn trouble(http: &Http, trouble: &Trouble, namespace: &str) -> Refusal {
    let words = match http.quotable(&trouble.message) {
        true => format!("it ended the watch: {}", quoted(&trouble.message)),
        false => "it ended the watch".to_owned(),
    };
    let status = StatusCode::from_u16(trouble.code).unwrap_or_default();
    // Another server may not have come as far as we have.
    if trouble.message.contains("Too large resource version") {
        return Refusal::Gone(http.error(ErrorKind::Failed, words));
    }
    refusal(http, status, words, "watch", namespace)
}

async fn refused(http: &Http, response: Response, verb: &str, namespace: &str) -> Refusal {
    let status = response.status();
    let said = http.words(response).await;
    let words = match serde_json::from_str::<Trouble>(&said) {
        Ok(trouble) if !trouble.message.is_empty() => quoted(&trouble.message),
        _ => quoted(&said),
    };
    let words = match words {
        // What was escaped may be a secret once it is not.
        words if words.is_empty() || !http.quotable(&words) => format!("it answered {status}"),
        words => format!("it answered {status}: {words}"),
    };
    refusal(http, status, words, verb, namespace)
}

fn refusal(http: &Http, status: StatusCode, words: String, verb: &str, namespace: &str) -> Refusal {
    Refusal::Error(match status {
        StatusCode::GONE => return Refusal::Gone(http.error(ErrorKind::Failed, words)),
        StatusCode::UNAUTHORIZED => {
            let message = format!("it does not accept the token, or there is none: {words}");
            http.error(ErrorKind::Denied, message)
        }
        StatusCode::FORBIDDEN => {
            let right = format!("`{verb}` on endpointslices of discovery.k8s.io");
            let message =
                format!("the right to {right} in namespace `{namespace}` is missing: {words}");
            http.error(ErrorKind::Denied, message)
        }
        StatusCode::NOT_FOUND => {
            let message = format!("{words}; it may not be an API server, or be older than 1.21");
            http.error(ErrorKind::Failed, message)
        }
        _ => http.error(ErrorKind::Failed, words),
    })
}

fn path(namespace: &str) -> [&str; 6] {
    [
        "apis",
        "discovery.k8s.io",
        "v1",
        "namespaces",
        namespace,
        "endpointslices",
    ]
}

/// A registry is a neighbour, hence no proxy. Of HTTP/2, all watches would share a connection, which the next request
/// would take as well once it has died in silence.
fn builder() -> ClientBuilder {
    ClientBuilder::new().no_proxy().http1_only()
}

impl Refusal {
    pub(super) fn error(self) -> RegistryError {
        match self {
            Self::Gone(error) | Self::Error(error) => error,
        }
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        Self::Error(error)
    }
}
