use std::sync::Arc;

use axum::http::HeaderMap;
use buttress::BoxError;
use buttress::transport::reqwest::Client;
use reqwest::Response;
use serde::Serialize;

use crate::plain::PlainClient;
use crate::stats::{Path, Stats};

/// The two ways by which one service calls another in this demonstration.
#[derive(Clone)]
pub struct Calls {
    pub protected: Client,
    pub plain: Arc<PlainClient>,
    pub stats: Arc<Stats>,
}

impl Calls {
    /// Calls `GET url`, the way that the trip goes.
    pub async fn get(&self, path: Path, url: String) -> Result<Response, BoxError> {
        self.stats.call(path);
        let response = match path {
            Path::Protected => self.protected.get(url).send().await?,
            Path::Plain => self.plain.get(url).await?,
        };
        Ok(response.error_for_status()?)
    }

    /// Calls `POST url`. `key` makes it safe to repeat.
    pub async fn post(
        &self,
        path: Path,
        url: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<Response, BoxError> {
        self.stats.call(path);
        let response = match path {
            Path::Protected => {
                let request = self.protected.post(url).idempotency_key(key).json(body);
                request.header(PATH, path.as_str()).send().await?
            }
            Path::Plain => self.plain.post(url, key, path, body).await?,
        };
        Ok(response.error_for_status()?)
    }
}

/// The way that a trip goes; its calls go the same way.
pub fn path_of(headers: &HeaderMap) -> Path {
    match headers.get(PATH) {
        Some(path) if path == Path::Plain.as_str() => Path::Plain,
        _ => Path::Protected,
    }
}

/// Names the way that a trip goes.
pub const PATH: &str = "x-path";
