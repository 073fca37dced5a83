use ::http::{Request, Response};

use super::{Attempts, HttpRules, idempotent, retry_after};
use crate::clock;
use crate::error::{AsRejected, Rejected};
use crate::layers::hedge::CopyRequest;
use crate::layers::retry::{Decision, Rules};

/// Statuses that are worth it are tried again, and errors that are no refusals, if the request is [`idempotent`]. No
/// other is copied.
///
/// Nothing is known here of an error that says that nothing was sent: it is tried again as any other.
impl<B, C, E> Rules<Request<B>, Response<C>, E> for HttpRules
where
    B: Clone,
    E: AsRejected,
{
    fn replay(&self, request: &Request<B>, _: u32) -> Option<Request<B>> {
        idempotent(request.method(), request.headers()).then(|| request.clone())
    }

    fn mark_response(&self, response: &mut Response<C>, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }

    fn decide(&self, _: &Request<B>, result: Result<&Response<C>, &E>) -> Decision {
        let Ok(response) = result else {
            return true.into();
        };
        match self.is_retried(response.status()) {
            true => Decision::Retry {
                after: retry_after(response.headers(), clock::wall()),
            },
            false => Decision::Done,
        }
    }

    fn is_failure(&self, result: Result<&Response<C>, &E>) -> bool {
        result.map_or(true, |response| self.is_retried(response.status()))
    }

    fn is_refusal(&self, error: &E) -> bool {
        error.as_rejected().is_some_and(Rejected::never_sent)
    }
}

/// Only [`idempotent`] requests are sent twice.
impl<B: Clone> CopyRequest<Request<B>> for HttpRules {
    fn copy(&self, request: &Request<B>, _: u32) -> Option<Request<B>> {
        idempotent(request.method(), request.headers()).then(|| request.clone())
    }
}
