//! What becomes of a call in a layer that has to let it in: it waits for that, then for the service inside, and runs.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tower::Service;

pin_project! {
    // Waiting (to be let in) -> Readying (the inner service) -> Running -> Over
    //
    // What waits is in boxes: most calls do not, and the layers around move what is here.
    #[project = AdmittedProj]
    #[derive(Debug)]
    pub(crate) enum Admitted<A, P, S, Req, F, E> {
        Waiting {
            acquire: Pin<Box<A>>,
            call: Option<Box<(S, Req)>>,
        },
        Readying {
            call: Option<Box<(S, Req)>>,
            permit: Option<P>,
        },
        Running {
            #[pin]
            inner: F,
            permit: Option<P>,
        },
        Over {
            error: Option<E>,
            permit: Option<P>,
        },
    }
}

/// What a call is given that is not refused: to be let in, or the wait for that.
pub(crate) enum Entry<P, A> {
    Now(P),
    Later(A),
}

/// How a call ended, and its permit if it had one.
pub(crate) type End<Res, E, P> = (Result<Res, E>, Option<P>);

impl<A, P, S, Req, R> Admitted<A, P, S, Req, S::Future, S::Error>
where
    A: Future<Output = Result<P, R>>,
    S: Service<Req> + Clone,
    S::Error: From<R>,
{
    /// Of a call that was let in at once it runs, if `inner` is ready as well.
    #[inline(always)]
    pub(crate) fn new(entry: Result<Entry<P, A>, R>, inner: &mut S, request: Req) -> Self {
        let permit = match entry {
            Ok(Entry::Now(permit)) => permit,
            Ok(Entry::Later(acquire)) => {
                return Self::Waiting {
                    acquire: Box::pin(acquire),
                    call: Some(Box::new((inner.clone(), request))),
                };
            }
            Err(refused) => return Self::over(refused.into(), None),
        };
        // A look without a waker: if it is not ready, the future asks again with its own.
        match inner.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Running {
                inner: inner.call(request),
                permit: Some(permit),
            },
            Poll::Ready(Err(error)) => Self::over(error, Some(permit)),
            Poll::Pending => {
                // What was asked goes with the call, so that the one that stays here holds nothing.
                let clone = inner.clone();
                Self::Readying {
                    call: Some(Box::new((mem::replace(inner, clone), request))),
                    permit: Some(permit),
                }
            }
        }
    }

    fn over(error: S::Error, permit: Option<P>) -> Self {
        let error = Some(error);
        Self::Over { error, permit }
    }
}

impl<A, P, S, Req, R> Admitted<A, P, S, Req, S::Future, S::Error>
where
    A: Future<Output = Result<P, R>>,
    S: Service<Req>,
    S::Error: From<R>,
{
    /// Nothing of the layer's is kept once the call has ended, however long this is.
    #[inline(always)]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<End<S::Response, S::Error, P>> {
        match self.as_mut().project() {
            AdmittedProj::Running { inner, permit } => {
                let result = ready!(inner.poll(cx));
                Poll::Ready((result, permit.take()))
            }
            _ => self.poll_early(cx),
        }
    }

    /// Of a call that was not let in at once.
    #[cold]
    fn poll_early(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<End<S::Response, S::Error, P>> {
        let end = loop {
            let next = match self.as_mut().project() {
                AdmittedProj::Waiting { acquire, call } => {
                    match ready!(acquire.as_mut().poll(cx)) {
                        Ok(permit) => Self::Readying {
                            call: call.take(),
                            permit: Some(permit),
                        },
                        Err(refused) => break (Err(refused.into()), None),
                    }
                }
                AdmittedProj::Readying { call, permit } => {
                    let (inner, _) = &mut **call.as_mut().expect("not called yet");
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        break (Err(error), permit.take());
                    }
                    let (mut inner, request) = *call.take().expect("not called yet");
                    Self::Running {
                        inner: inner.call(request),
                        permit: permit.take(),
                    }
                }
                AdmittedProj::Running { inner, permit } => {
                    return Poll::Ready((ready!(inner.poll(cx)), permit.take()));
                }
                AdmittedProj::Over { error, permit } => {
                    let error = error.take().expect("polled after completion");
                    break (Err(error), permit.take());
                }
            };
            self.set(next);
        };
        // What waited is let go before its end is known.
        let (error, permit) = (None, None);
        self.set(Self::Over { error, permit });
        Poll::Ready(end)
    }
}
