//! What becomes of a call in a layer that has to let it in: it waits for that, then for the service inside, and runs.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::error::Rejected;

pin_project! {
    // Waiting (to be let in) -> Readying (the inner service) -> Running -> Over
    #[project = AdmittedProj]
    #[derive(Debug)]
    pub(crate) enum Admitted<A, P, S, Req, F> {
        Waiting {
            #[pin]
            acquire: A,
            call: Option<(S, Req)>,
        },
        Readying {
            call: Option<(S, Req)>,
            permit: Option<P>,
        },
        // The work is dropped before its permit.
        Running {
            #[pin]
            inner: F,
            permit: Option<P>,
        },
        Over { refused: Option<Rejected> },
    }
}

/// How a call ended, and its permit if it had one.
pub(crate) type End<Res, E, P> = (Result<Res, E>, Option<P>);

impl<A, P, S, Req, F> Admitted<A, P, S, Req, F> {
    pub(crate) fn new(acquire: A, inner: S, request: Req) -> Self {
        let call = Some((inner, request));
        Self::Waiting { acquire, call }
    }

    pub(crate) fn refused(rejected: Rejected) -> Self {
        let refused = Some(rejected);
        Self::Over { refused }
    }
}

impl<A, P, S, Req> Admitted<A, P, S, Req, S::Future>
where
    A: Future<Output = Result<P, Rejected>>,
    S: Service<Req>,
    S::Error: From<Rejected>,
{
    /// Nothing is kept once the call has ended, however long this is.
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<End<S::Response, S::Error, P>> {
        let end = loop {
            let next = match self.as_mut().project() {
                AdmittedProj::Waiting { acquire, call } => match ready!(acquire.poll(cx)) {
                    Ok(permit) => Self::Readying {
                        call: call.take(),
                        permit: Some(permit),
                    },
                    Err(rejected) => break (Err(rejected.into()), None),
                },
                AdmittedProj::Readying { call, permit } => {
                    let (inner, _) = call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break (Err(error), permit.take());
                    }
                    let (mut inner, request) = call.take().expect("not called yet");
                    Self::Running {
                        inner: inner.call(request),
                        permit: permit.take(),
                    }
                }
                AdmittedProj::Running { inner, permit } => {
                    break (ready!(inner.poll(cx)), permit.take());
                }
                AdmittedProj::Over { refused } => {
                    let rejected = refused.take().expect("polled after completion");
                    break (Err(rejected.into()), None);
                }
            };
            self.set(next);
        };
        self.set(Self::Over { refused: None });
        Poll::Ready(end)
    }
}
