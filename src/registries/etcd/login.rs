use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::Mutex;

use super::call::{Failure, Why, ask};
use super::wire::Token;
use crate::registries::servers::{Servers, Turn};

/// A user and password, and the token that they were last worth. Checking a password is slow work for etcd, so that all
/// who need a new token at once get the same one.
pub(super) struct Login {
    name: String,
    password: SecretString,
    /// Nothing before the first request; no token where etcd has no users.
    token: Mutex<Option<Option<SecretString>>>,
}

impl Login {
    pub(super) fn new(name: String, password: SecretString) -> Self {
        Self {
            name,
            password,
            token: Mutex::default(),
        }
    }

    /// The token to try first.
    pub(super) async fn token(&self, servers: &Servers) -> Result<Option<SecretString>, Failure> {
        let mut token = self.token.lock().await;
        if let Some(token) = &*token {
            return Ok(token.clone());
        }
        let new = self.authenticate(servers).await?;
        Ok(token.insert(new).clone())
    }

    /// A token other than `old`.
    pub(super) async fn renewed(
        &self,
        old: Option<&SecretString>,
        servers: &Servers,
    ) -> Result<Option<SecretString>, Failure> {
        let mut token = self.token.lock().await;
        if let Some(token) = &*token {
            let [now, old] =
                [token.as_ref(), old].map(|token| token.map(ExposeSecret::expose_secret));
            if now != old {
                return Ok(token.clone());
            }
        }
        let new = self.authenticate(servers).await?;
        Ok(token.insert(new).clone())
    }

    async fn authenticate(&self, servers: &Servers) -> Result<Option<SecretString>, Failure> {
        let password = self.password.expose_secret();
        let body = &json!({"name": self.name, "password": password});
        let authenticate =
            |turn: Turn| async move { ask(&turn, &["v3", "auth", "authenticate"], body).await };
        match servers.each(authenticate).await {
            Ok(Token { token }) => Ok(Some(token.into())),
            Err(failure) if failure.why == Why::NoUsers => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}
