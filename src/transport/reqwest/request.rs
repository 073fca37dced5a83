use std::fmt::Display;
use std::time::Duration;

use ::reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ::reqwest::{Body, Response};
use serde::Serialize;

use super::transport::without_secrets;
use super::{Client, ClientError};
use crate::error::Error;

/// A request that is being put together; sent by [`send`](Self::send).
///
/// What is not here is on [`reqwest::RequestBuilder`]: [`with`](Self::with) reaches it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    request: ::reqwest::RequestBuilder,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, request: ::reqwest::RequestBuilder) -> Self {
        Self { client, request }
    }

    /// Adds a header.
    pub fn header<K, V>(self, key: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.with(|request| request.header(key, value))
    }

    /// Adds or replaces headers.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|request| request.headers(headers))
    }

    /// Adds an `Idempotency-Key`, which says that the request may be sent again even if its method does not.
    pub fn idempotency_key(self, key: impl Display) -> Self {
        self.header("idempotency-key", key.to_string())
    }

    /// Adds an `Authorization: Bearer` header.
    pub fn bearer_auth(self, token: impl Display) -> Self {
        self.with(|request| request.bearer_auth(token))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|request| request.body(body))
    }

    /// Sets the body to `value` as JSON.
    pub fn json<V: Serialize + ?Sized>(self, value: &V) -> Self {
        self.with(|request| request.json(value))
    }

    /// Bounds the whole call, all attempts and the answer's body included. The policy's limit holds if it is shorter.
    pub fn timeout(self, limit: Duration) -> Self {
        self.with(|request| request.timeout(limit))
    }

    /// Changes the `reqwest` builder inside.
    pub fn with(
        self,
        change: impl FnOnce(::reqwest::RequestBuilder) -> ::reqwest::RequestBuilder,
    ) -> Self {
        Self {
            client: self.client,
            request: change(self.request),
        }
    }

    /// Sends the request.
    ///
    /// # Errors
    ///
    /// As [`Client::execute`]; also if the request could not be put together.
    pub async fn send(self) -> Result<Response, ClientError> {
        let request = self.request.build();
        let request = request.map_err(|error| Error::Inner(without_secrets(error)))?;
        self.client.execute(request).await
    }
}
