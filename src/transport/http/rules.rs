use http::{Request, Response};
use http_body::Body;

use super::{Attempt, Attempts, HttpRules, ReplayBody, idempotent, retry_after};
use crate::classify::{Classify, ErrorsFail, Outcome};
use crate::clock;
use crate::error::{AsRejected, Rejected};
use crate::layers::hedge::CopyRequest;
use crate::layers::retry::{Decision, Rules};
#[cfg(feature = "hyper")]
use crate::transport::hyper::is_connect;

/// For a [`RetryLayer`](crate::layers::retry::RetryLayer). Errors are tried again as the answers are, refusals of the
/// layers inside apart, and nothing whose body cannot be sent again. Each request gets an [`Attempt`] as an extension.
///
/// With the feature `hyper`, any request is tried again that was never sent because no connection was made: where the
/// error is a `hyper_util::client::legacy::Error` that says so, in a [`BoxError`](crate::BoxError) or what caused it, or in
/// an [`Error`](crate::Error).
impl<B, Res, E> Rules<Request<ReplayBody<B>>, Response<Res>, E> for HttpRules
where
    B: Body,
    E: AsRejected + 'static,
{
    fn replay(&self, request: &Request<ReplayBody<B>>, _: u32) -> Option<Request<ReplayBody<B>>> {
        copy(request)
    }

    fn mark(&self, request: &mut Request<ReplayBody<B>>, number: u32) {
        let attempt = Attempt {
            number,
            hedge: false,
        };
        self.mark_as(attempt, request);
    }

    fn mark_response(&self, response: &mut Response<Res>, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }

    fn decide(
        &self,
        request: &Request<ReplayBody<B>>,
        result: Result<&Response<Res>, &E>,
    ) -> Decision {
        let idempotent = || idempotent(request.method(), request.headers());
        let (again, after) = match result {
            Ok(response) => (
                self.is_retried(response.status()) && idempotent(),
                retry_after(response.headers(), clock::wall()),
            ),
            // Never sent, so that it is safe whatever it is.
            Err(error) if is_connect(error) => (true, None),
            Err(_) => (idempotent(), None),
        };
        match again && request.body().can_replay() {
            true => Decision::Retry { after },
            false => Decision::Done,
        }
    }

    fn is_failure(&self, result: Result<&Response<Res>, &E>) -> bool {
        result.map_or(true, |response| self.is_retried(response.status()))
    }

    fn is_refusal(&self, error: &E) -> bool {
        error.as_rejected().is_some_and(Rejected::never_sent)
    }
}

/// For a [`HedgeLayer`](crate::layers::hedge::HedgeLayer): what is idempotent may be sent twice at once. Inside of a
/// retry, its hedges count on from its attempt.
impl<B: Body> CopyRequest<Request<ReplayBody<B>>> for HttpRules {
    fn copy(&self, request: &Request<ReplayBody<B>>, _: u32) -> Option<Request<ReplayBody<B>>> {
        if !idempotent(request.method(), request.headers()) {
            return None;
        }
        let mut hedge = copy(request)?;
        let before = request.extensions().get::<Attempt>();
        self.mark_as(Attempt::hedge_after(before.copied()), &mut hedge);
        Some(hedge)
    }
}

/// For whatever counts failures. An error is a failure, unless a layer inside refused.
impl<Res, E: AsRejected> Classify<Response<Res>, E> for HttpRules {
    fn classify(&self, result: Result<&Response<Res>, &E>) -> Outcome {
        match result {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers());
                HttpRules::classify(self, status, headers, clock::wall())
            }
            Err(error) => ErrorsFail.classify(Err::<&Response<Res>, _>(error)),
        }
    }

    fn mark_response(&self, response: &mut Response<Res>, attempts: u32) {
        Attempts::write(attempts, response.extensions_mut());
    }
}

#[cfg(not(feature = "hyper"))]
fn is_connect<E>(_: &E) -> bool {
    false
}

impl HttpRules {
    fn mark_as<B>(&self, attempt: Attempt, request: &mut Request<B>) {
        request.extensions_mut().insert(attempt);
        self.announce(attempt, request.headers_mut());
    }
}

pub(crate) fn copy<B: Body>(request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
    let mut copy = Request::new(request.body().replay()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
