//! What a server answers: decoded up to a length, and quoted without secrets.

use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::Http;
use crate::discovery::{ErrorKind, RegistryError};

impl Http {
    /// Decodes an answer.
    pub(in crate::registries) async fn json<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, RegistryError> {
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let body = self.body(response, LONGEST_ANSWER).await?;
        if body.len() > LONGEST_ANSWER {
            let message = format!("its answer is longer than {LONGEST_ANSWER} bytes");
            return Err(self.error(ErrorKind::Malformed, message));
        }
        self.parse(&body)
    }

    /// Decodes an answer, or a part of one.
    pub(in crate::registries) fn parse<T: DeserializeOwned>(
        &self,
        body: &[u8],
    ) -> Result<T, RegistryError> {
        serde_json::from_slice(body).map_err(|error| {
            let error = error.to_string();
            let why = if self.quotable(&error) {
                &error
            } else {
                "it repeats a secret"
            };
            let message = format!("its answer cannot be understood: {why}");
            self.error(ErrorKind::Malformed, message)
        })
    }

    /// The error for an answer that is no success, with the server's own words.
    pub(in crate::registries) async fn refused(&self, response: Response) -> RegistryError {
        let status = response.status();
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            // Said again, or to another server, it would make no more sense.
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => ErrorKind::Unsupported,
            _ => ErrorKind::Failed,
        };
        match self.words(response).await {
            said if said.is_empty() => self.error(kind, format!("it answered {status}")),
            said => self.error(kind, format!("it answered {status}: {}", quoted(&said))),
        }
    }

    /// What the server says in words, or nothing if that is no help or repeats a secret.
    pub(in crate::registries) async fn words(&self, response: Response) -> String {
        let body = self.body(response, LONGEST_REFUSAL).await;
        let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
        // Checked whole: a secret cut in two would not be recognised.
        match self.quotable(&body) {
            true => body,
            false => String::new(),
        }
    }

    /// Whether `text` repeats nothing that is secret, nor would on one line.
    pub(in crate::registries) fn quotable(&self, text: &str) -> bool {
        let line = on_one_line(text);
        let mut secrets = self.secrets.iter().map(ExposeSecret::expose_secret);
        !secrets.any(|secret| text.contains(secret) || line.contains(secret))
    }

    /// The answer's body, or more than `limit` bytes of it where it is longer.
    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while body.len() <= limit {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(body)
    }
}

/// The beginning of what a server said, on one line.
pub(in crate::registries) fn quoted(said: &str) -> String {
    on_one_line(said).chars().take(QUOTED).collect()
}

fn on_one_line(said: &str) -> String {
    let words: Vec<_> = said.split_whitespace().collect();
    words.join(" ")
}

/// 20 000 instances as Eureka writes them.
pub(in crate::registries) const LONGEST_ANSWER: usize = 32 * 1024 * 1024;
const LONGEST_REFUSAL: usize = 64 * 1024;
const QUOTED: usize = 200;
