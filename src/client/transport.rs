use std::sync::Arc;

use crate::classify::Outcome;
use crate::deadline::Deadline;
use crate::discovery::Instance;
use crate::error::{Error, Rejected};
use crate::layers::retry::Decision;

/// How requests of one kind are sent: what a [`Client`](super::Client) needs to know of `reqwest`, `hyper` or `tonic`.
pub trait Transport: Clone + Send + Sync + 'static {
    /// A request that names a service.
    type Request: Send + 'static;
    /// The answer.
    type Response: Send + 'static;
    /// What goes wrong below.
    type Error: Send + 'static;
    /// What is kept for an instance for as long as it is known: a connection pool, an address.
    type Endpoint: Clone + Send + Sync + 'static;
    /// An attempt under way.
    type Future: Future<Output = Result<Self::Response, Error<Self::Error>>> + Send + 'static;

    /// The name of the service that `request` is for.
    ///
    /// # Errors
    ///
    /// If it names none, or what cannot be a service.
    fn service<'a>(&self, request: &'a Self::Request) -> Result<&'a str, Rejected>;

    /// A copy for another attempt, or `None` if it can be sent only once.
    fn replay(&self, request: &Self::Request) -> Option<Self::Request>;

    /// Writes into `request`, which is sent next, that it is attempt number `attempt`, 1 for the first. The default writes
    /// nothing.
    fn mark(&self, request: &mut Self::Request, attempt: u32) {
        let _ = (request, attempt);
    }

    /// Writes into `response`, which goes to the caller unless another attempt follows, that the call took `attempts`
    /// attempts, where they are more than one. The default writes nothing.
    fn mark_response(&self, response: &mut Self::Response, attempts: u32) {
        let _ = (response, attempts);
    }

    /// Whether another attempt of `request` is safe and may help.
    fn decide(
        &self,
        request: &Self::Request,
        result: Result<&Self::Response, &Error<Self::Error>>,
    ) -> Decision;

    /// Whether `result`, which the last of several attempts ended with, is one for which there would be another: then the
    /// call counts as given up. The default says so of every error.
    fn is_failure(&self, result: Result<&Self::Response, &Error<Self::Error>>) -> bool {
        result.is_err()
    }

    /// What a result says about the peer.
    fn classify(&self, result: Result<&Self::Response, &Error<Self::Error>>) -> Outcome;

    /// What is kept for `instance`.
    fn endpoint(&self, instance: &Arc<Instance>) -> Self::Endpoint;

    /// Sends `request` to an instance; the answer's body must have been read by `deadline`.
    fn call(
        &self,
        endpoint: &Self::Endpoint,
        request: Self::Request,
        deadline: Option<Deadline>,
    ) -> Self::Future;

    /// Sends `request` where it says, past all discovery.
    fn call_as_is(&self, request: Self::Request, deadline: Option<Deadline>) -> Self::Future;
}
