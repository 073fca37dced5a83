use std::sync::Arc;

use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::login::Login;
use super::stream::Stream;
use super::wire::{Lease, Line, Trouble};
use crate::discovery::{ErrorKind, RegistryError};
use crate::registries::http::{Http, quoted};
use crate::registries::servers::{Fault, Servers, Turn};

/// Requests to the cluster: at the member that answers, and with a token if there is a user.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) servers: Servers,
    pub(super) login: Option<Arc<Login>>,
}

/// Why a request came to nothing.
pub(super) struct Failure {
    error: RegistryError,
    pub(super) why: Why,
}

/// What can be done about a request that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Why {
    /// Ask another member.
    Broken,
    /// Log in again: the token has expired, or the users changed.
    Token,
    /// Nothing: there are no users.
    NoUsers,
    /// Nothing: what is asked for is not there.
    Missing,
    /// Nothing.
    Refused,
}

impl Cluster {
    /// The answer to `body` at `path`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Failure> {
        self.logged_in(|turn| async move { ask(&turn, path, body).await })
            .await
    }

    /// A watch that has begun.
    pub(super) async fn watch(&self, body: &Value) -> Result<Stream, Failure> {
        self.logged_in(|turn| async move { watch(turn, body).await })
            .await
    }

    /// Renews `lease`, and says how many seconds it has left: none if it is gone.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<i64, Failure> {
        let path = ["v3", "lease", "keepalive"];
        let body = &json!({"ID": lease.to_string()});
        let ask = |turn: Turn| async move {
            let line: Line<Lease> = ask(&turn, &path, body).await?;
            line.read(&turn.http)
        };
        Ok(self.logged_in(ask).await?.ttl)
    }

    async fn logged_in<T, F>(&self, ask: impl Fn(Turn) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Some(login) = &self.login else {
            return self.servers.each(ask).await;
        };
        let mut token = login.token(&self.servers).await?;
        let mut is_new = false;
        loop {
            let with_token = |mut turn: Turn| {
                if let Some(token) = &token {
                    turn.http.token(AUTHORIZATION, token.clone());
                }
                ask(turn)
            };
            match self.servers.each(with_token).await {
                Err(failure) if failure.why == Why::Token && !is_new => {}
                answer => return answer,
            }
            token = login.renewed(token.as_ref(), &self.servers).await?;
            is_new = true;
        }
    }
}

/// The answer of one member.
pub(super) async fn ask<T: DeserializeOwned>(
    turn: &Turn,
    path: &[&str],
    body: &Value,
) -> Result<T, Failure> {
    let http = &turn.http;
    let response = http.send(request(http, path, body), turn.limit).await;
    let response = response.map_err(Failure::broken)?;
    if !response.status().is_success() {
        return Err(refused(http, response).await);
    }
    http.json(response).await.map_err(Failure::broken)
}

async fn watch(turn: Turn, body: &Value) -> Result<Stream, Failure> {
    let Turn { http, limit, .. } = turn;
    let request = request(&http, &["v3", "watch"], body)
        // A member that is cut off from the others is to say so, rather than nothing.
        .header("grpc-metadata-hasleader", "true");
    let response = http.open(request, limit).await.map_err(Failure::broken)?;
    if !response.status().is_success() {
        return Err(refused(&http, response).await);
    }
    let mut stream = Stream::new(http, response);
    let first = stream.within(limit).await?;
    if first.canceled {
        return Err(stream.canceled(&first));
    }
    if !first.created {
        let error = stream
            .http
            .error(ErrorKind::Malformed, "it begins no watch");
        return Err(Failure::broken(error));
    }
    Ok(stream)
}

fn request(http: &Http, path: &[&str], body: &Value) -> RequestBuilder {
    http.request(Method::POST, path.iter().copied(), &[])
        .json(body)
}

/// Why an answer is no success.
async fn refused(http: &Http, response: Response) -> Failure {
    let status = response.status();
    let said = http.words(response).await;
    let trouble: Trouble = serde_json::from_str(&said).unwrap_or_default();
    let words = match &trouble.message {
        Some(message) => quoted(message),
        None => quoted(&said),
    };
    let words = match words {
        // What was escaped may be a secret once it is not.
        words if words.is_empty() || !http.quotable(&words) => format!("it answered {status}"),
        words => format!("it answered {status}: {words}"),
    };
    match (trouble.code, status) {
        (None, StatusCode::NOT_FOUND) => {
            let message = format!("{words}; its JSON gateway may be switched off");
            Failure::broken(http.error(ErrorKind::Failed, message))
        }
        (None, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Failure::new(http.error(ErrorKind::Denied, words), Why::Refused)
        }
        _ => trouble.failure(http, words),
    }
}

impl<T> Line<T> {
    /// What it tells, unless that is an error.
    pub(super) fn read(self, http: &Http) -> Result<T, Failure> {
        if let Some(result) = self.result {
            return Ok(result);
        }
        let Some(trouble) = self.error else {
            let message = "a line has neither result nor error";
            return Err(Failure::broken(http.error(ErrorKind::Malformed, message)));
        };
        let said = trouble.message.as_deref().unwrap_or_default();
        let words = match http.quotable(said) {
            true => format!("it ended the answer: {}", quoted(said)),
            false => "it ended the answer".to_owned(),
        };
        Err(trouble.failure(http, words))
    }
}

impl Trouble {
    /// What to make of it. `words` say it, and are free of secrets.
    pub(super) fn failure(&self, http: &Http, words: String) -> Failure {
        let said = self.message.as_deref().unwrap_or_default();
        let (kind, why) = match self.code {
            _ if said.contains("invalid auth token") => (ErrorKind::Denied, Why::Token),
            _ if said.contains("auth store is old") => (ErrorKind::Denied, Why::Token),
            _ if said.contains("user name is empty") => (ErrorKind::Denied, Why::Token),
            _ if said.contains("authentication failed") => (ErrorKind::Denied, Why::Refused),
            _ if said.contains("authentication is not enabled") => {
                (ErrorKind::Failed, Why::NoUsers)
            }
            Some(PERMISSION_DENIED) => (ErrorKind::Denied, Why::Refused),
            Some(UNAUTHENTICATED) => (ErrorKind::Denied, Why::Token),
            Some(NOT_FOUND) => (ErrorKind::Failed, Why::Missing),
            Some(INVALID_ARGUMENT | FAILED_PRECONDITION | OUT_OF_RANGE) => {
                (ErrorKind::Failed, Why::Refused)
            }
            _ => (ErrorKind::Failed, Why::Broken),
        };
        Failure::new(http.error(kind, words), why)
    }
}

impl Failure {
    pub(super) fn new(error: RegistryError, why: Why) -> Self {
        Self { error, why }
    }

    pub(super) fn broken(error: RegistryError) -> Self {
        Self::new(error, Why::Broken)
    }

    pub(super) fn error(self) -> RegistryError {
        self.error
    }
}

impl Fault for Failure {
    fn is_broken(&self) -> bool {
        self.why == Why::Broken
    }
}

/// Codes of gRPC. With those that are not here, another member may do better.
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const FAILED_PRECONDITION: u32 = 9;
const OUT_OF_RANGE: u32 = 11;
const UNAUTHENTICATED: u32 = 16;
