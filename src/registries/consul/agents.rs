use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderName;
use secrecy::SecretString;

use crate::discovery::{ErrorKind, RegistryError};
use crate::registries::servers::{Servers, Turn};

/// Agents of one cluster, and the token that they ask for.
#[derive(Clone, Debug)]
pub(super) struct Agents {
    pub(super) servers: Servers,
    pub(super) token: Option<Token>,
}

/// Where the token is.
#[derive(Clone, Debug)]
pub(super) enum Token {
    Text(SecretString),
    File(Arc<PathBuf>),
}

impl Agents {
    /// Asks one agent after another until one answers, with the token as it is now.
    pub(super) async fn each<T, F>(&self, ask: impl Fn(Turn) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        self.each_after(Duration::ZERO, ask).await
    }

    /// As [`each`](Self::each), where an agent that has nothing to tell may be silent for as long as `wait`.
    pub(super) async fn each_after<T, F>(
        &self,
        wait: Duration,
        ask: impl Fn(Turn) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let token = self.token()?;
        let with_token = |turn| ask(show(&token, turn));
        self.servers.each_after(wait, with_token).await
    }

    /// All of them, in the order in which to ask them.
    pub(super) fn turns(&self) -> Result<impl Iterator<Item = Turn>, RegistryError> {
        let token = self.token()?;
        Ok(self.servers.turns().map(move |turn| show(&token, turn)))
    }

    fn token(&self) -> Result<Option<SecretString>, RegistryError> {
        let path = match &self.token {
            None => return Ok(None),
            Some(Token::Text(token)) => return Ok(Some(token.clone())),
            Some(Token::File(path)) => path,
        };
        let wrong = |why: &str| {
            let message = format!("its token cannot be read from {}: {why}", path.display());
            self.servers.error(ErrorKind::Denied, message)
        };
        // Some forty bytes of a local file, for a request over the network: not worth a thread.
        let text = std::fs::read_to_string(&**path).map_err(|error| wrong(&error.to_string()))?;
        match text.trim() {
            "" => Err(wrong("it is empty")),
            token => Ok(Some(token.into())),
        }
    }
}

fn show(token: &Option<SecretString>, mut turn: Turn) -> Turn {
    if let Some(token) = token {
        let header = HeaderName::from_static("x-consul-token");
        turn.http.token(header, token.clone());
    }
    turn
}
