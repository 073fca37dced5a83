use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::flight::Flight;
use super::{Balance, NewEndpoint, Tried};
use crate::classify::Classify;
use crate::discovery::{BoxFuture, Snapshot};
use crate::error::Rejected;

pin_project! {
    /// A call through a [`Balance`].
    #[must_use = "futures do nothing unless polled"]
    pub struct SendFuture<N, C, R>
    where
        N: NewEndpoint,
        N::Service: Service<R>,
    {
        classify: Arc<C>,
        #[pin]
        state: State<N, C, R, <N::Service as Service<R>>::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<N, C, R, F>
    where
        N: NewEndpoint,
    {
        // No instance is known yet. Boxed, since it is not the way that calls usually take.
        Resolving {
            balance: Balance<N, C>,
            resolved: BoxFuture<'static, Result<Arc<Snapshot>, Rejected>>,
            request: Option<R>,
            tried: Option<Arc<Tried>>,
        },
        // The instance is picked; its service is a clone of our own, and the one made ready is called.
        Preparing {
            flight: Option<Flight<N::Service>>,
            service: N::Service,
            request: Option<R>,
        },
        Calling {
            flight: Option<Flight<N::Service>>,
            #[pin]
            inner: F,
        },
        Done,
    }
}

impl<N, C, R> SendFuture<N, C, R>
where
    N: NewEndpoint,
    N::Service: Service<R> + Clone,
{
    pub(super) fn new(balance: &Balance<N, C>, request: R, tried: Option<&Arc<Tried>>) -> Self {
        let state = match balance.pick(tried) {
            Some(flight) => State::preparing(flight, request),
            None => State::Resolving {
                balance: balance.clone(),
                resolved: balance.resolved(),
                request: Some(request),
                tried: tried.cloned(),
            },
        };
        Self {
            classify: balance.classify.clone(),
            state,
        }
    }
}

impl<N, C, R, F> State<N, C, R, F>
where
    N: NewEndpoint,
    N::Service: Clone,
{
    fn preparing(flight: Flight<N::Service>, request: R) -> Self {
        Self::Preparing {
            service: flight.member.service.clone(),
            flight: Some(flight),
            request: Some(request),
        }
    }
}

impl<N, C, R> Future for SendFuture<N, C, R>
where
    N: NewEndpoint,
    N::Service: Service<R> + Clone,
    <N::Service as Service<R>>::Error: From<Rejected>,
    C: Classify<<N::Service as Service<R>>::Response, <N::Service as Service<R>>::Error>,
{
    type Output = Result<<N::Service as Service<R>>::Response, <N::Service as Service<R>>::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Resolving {
                    balance,
                    resolved,
                    request,
                    tried,
                } => {
                    let picked = ready!(resolved.as_mut().poll(cx)).and_then(|_| {
                        // They may have gone since.
                        let nobody = || balance.no_instance();
                        balance.pick(tried.as_ref()).ok_or_else(nobody)
                    });
                    let request = request.take().expect("polled after completion");
                    picked
                        .map(|flight| State::preparing(flight, request))
                        .map_err(Into::into)
                }
                StateProj::Preparing {
                    flight,
                    service,
                    request,
                } => {
                    let prepared = watched(flight, || {
                        let ready = ready!(service.poll_ready(cx));
                        Poll::Ready(ready.map(|()| {
                            service.call(request.take().expect("polled after completion"))
                        }))
                    });
                    match ready!(prepared) {
                        Ok(inner) => Ok(State::Calling {
                            flight: flight.take(),
                            inner,
                        }),
                        Err(error) => {
                            finish(flight, &**this.classify, Err(&error));
                            Err(error)
                        }
                    }
                }
                StateProj::Calling { flight, inner } => {
                    let result = ready!(watched(flight, || inner.poll(cx)));
                    finish(flight, &**this.classify, result.as_ref());
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Done => panic!("polled after completion"),
            };
            match next {
                Ok(state) => this.state.set(state),
                Err(error) => {
                    this.state.set(State::Done);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

/// Runs foreign code so that its panic counts as a failure.
fn watched<S, T>(flight: &mut Option<Flight<S>>, run: impl FnOnce() -> T) -> T {
    set_polling(flight, true);
    let result = run();
    set_polling(flight, false);
    result
}

fn set_polling<S>(flight: &mut Option<Flight<S>>, polling: bool) {
    if let Some(flight) = flight {
        flight.set_polling(polling);
    }
}

fn finish<S, C, Res, E>(flight: &mut Option<Flight<S>>, classify: &C, result: Result<&Res, &E>)
where
    C: Classify<Res, E>,
{
    let outcome = classify.classify(result);
    if let Some(flight) = flight.take() {
        flight.finish(outcome);
    }
}

impl<N, C, R> fmt::Debug for SendFuture<N, C, R>
where
    N: NewEndpoint,
    N::Service: Service<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}
