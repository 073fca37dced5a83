use ::reqwest::{Request, Response};

use super::ClientError;
use crate::classify::{Classify, ErrorsFail, Outcome};
use crate::clock;
use crate::error::{AsRejected, Error, Rejected};
use crate::layers::hedge::CopyRequest;
use crate::layers::retry::{Decision, Rules};
use crate::transport::http::{self, Attempts, HttpRules};

/// As for the types of `http`, and any request is tried again that was never sent because no connection was made.
impl Rules<Request, Response, ClientError> for HttpRules {
    fn replay(&self, request: &Request, _: u32) -> Option<Request> {
        request.try_clone()
    }

    fn mark_response(&self, response: &mut Response, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }

    fn decide(&self, request: &Request, result: Result<&Response, &ClientError>) -> Decision {
        let idempotent = || http::idempotent(request.method(), request.headers());
        let (again, after) = match result {
            Ok(response) => (
                self.is_retried(response.status()) && idempotent(),
                http::retry_after(response.headers(), clock::wall()),
            ),
            // Never sent, so that it is safe whatever it is.
            Err(Error::Inner(error)) if error.is_connect() => (true, None),
            Err(Error::Inner(error)) if is_callers(error) => (false, None),
            Err(_) => (idempotent(), None),
        };
        if !again {
            return Decision::Done;
        }
        Decision::Retry { after }
    }

    fn is_failure(&self, result: Result<&Response, &ClientError>) -> bool {
        match result {
            Ok(response) => self.is_retried(response.status()),
            Err(Error::Inner(error)) => !is_callers(error),
            Err(_) => true,
        }
    }

    fn is_refusal(&self, error: &ClientError) -> bool {
        error.as_rejected().is_some_and(Rejected::never_sent)
    }
}

/// Only idempotent requests are sent twice, if their body can be copied.
impl CopyRequest<Request> for HttpRules {
    fn copy(&self, request: &Request, _: u32) -> Option<Request> {
        let idempotent = http::idempotent(request.method(), request.headers());
        idempotent.then(|| request.try_clone()).flatten()
    }
}

/// What the caller did wrong is no failure of the peer; other errors are as [`ErrorsFail`] has them.
impl Classify<Response, ClientError> for HttpRules {
    fn classify(&self, result: Result<&Response, &ClientError>) -> Outcome {
        match result {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers());
                HttpRules::classify(self, status, headers, clock::wall())
            }
            Err(Error::Inner(error)) if is_callers(error) => Outcome::Ignored,
            Err(error) => ErrorsFail.classify(Err::<&(), _>(error)),
        }
    }

    fn mark_response(&self, response: &mut Response, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }
}

/// Whether the request itself is at fault, rather than the peer.
fn is_callers(error: &::reqwest::Error) -> bool {
    error.is_builder() || error.is_redirect()
}
