use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Answer, FallbackLayer};
use crate::algo::lanes::Share;
use crate::clock;
use crate::observe::Event;

pin_project! {
    /// The future of a [`Fallback`](super::Fallback).
    pub struct FallbackFuture<S, A, Req>
    where
        S: Service<Req>,
        A: Answer<Req, S::Response, S::Error>,
    {
        policy: Share<FallbackLayer<A>>,
        #[pin]
        state: State<Box<(S, Req)>, S::Future, S::Error, A::Kept, A::Future>,
    }
}

pin_project! {
    // Readying (while the service inside is not) ─▶ Calling ─▶ Answering
    // Unready ─▶ Answering
    #[project = StateProj]
    enum State<C, F, E, K, A> {
        Readying {
            call: Option<C>,
            kept: Option<K>,
        },
        Unready {
            error: Option<E>,
            kept: Option<K>,
        },
        Calling {
            #[pin]
            call: F,
            kept: Option<K>,
        },
        Answering {
            #[pin]
            answer: A,
        },
    }
}

impl<S, A, Req> FallbackFuture<S, A, Req>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, S::Error>,
{
    #[inline]
    pub(super) fn new(call: S::Future, kept: A::Kept, policy: Share<FallbackLayer<A>>) -> Self {
        let kept = Some(kept);
        Self {
            policy,
            state: State::Calling { call, kept },
        }
    }

    /// For a call that waits until `inner` is ready.
    pub(super) fn readying(
        inner: S,
        request: Req,
        kept: A::Kept,
        policy: Share<FallbackLayer<A>>,
    ) -> Self {
        let (call, kept) = (Some(Box::new((inner, request))), Some(kept));
        Self {
            policy,
            state: State::Readying { call, kept },
        }
    }

    /// In place of a call that the readiness of the inner service failed.
    pub(super) fn unready(error: S::Error, kept: A::Kept, policy: Share<FallbackLayer<A>>) -> Self {
        let (error, kept) = (Some(error), Some(kept));
        Self {
            policy,
            state: State::Unready { error, kept },
        }
    }
}

impl<S, A, Req> Future for FallbackFuture<S, A, Req>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (result, kept) = match this.state.as_mut().project() {
                StateProj::Calling { call, kept } => {
                    (ready!(clock::poll(|| call.poll(cx))), kept.take())
                }
                StateProj::Readying { call, kept } => {
                    let (inner, _) = &mut **call.as_mut().expect("not called yet");
                    let ready = ready!(inner.poll_ready(cx));
                    let (mut inner, request) = *call.take().expect("not called yet");
                    let kept = kept.take();
                    match ready {
                        Ok(()) => {
                            let call = inner.call(request);
                            this.state.set(State::Calling { call, kept });
                            continue;
                        }
                        Err(error) => (Err(error), kept),
                    }
                }
                StateProj::Unready { error, kept } => (
                    Err(error.take().expect("polled after completion")),
                    kept.take(),
                ),
                StateProj::Answering { answer } => {
                    let result = ready!(answer.poll(cx));
                    // What came back as it was is no answer.
                    if result.is_ok() && !this.policy.answer.applies(result.as_ref()) {
                        let fallback = &*this.policy.name;
                        this.policy.observer.emit(&Event::FellBack { fallback });
                    }
                    return Poll::Ready(result);
                }
            };
            let kept = kept.expect("polled after completion");
            if !this.policy.answer.applies(result.as_ref()) {
                if let Ok(response) = &result {
                    this.policy.answer.passes(kept, response);
                }
                return Poll::Ready(result);
            }
            let answer = this.policy.answer.answer(kept, result);
            this.state.set(State::Answering { answer });
        }
    }
}
