use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Answer, FallbackLayer};
use crate::algo::lanes::Share;
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
        state: State<S::Future, A::Kept, A::Future>,
    }
}

pin_project! {
    // Calling ─▶ Answering
    #[project = StateProj]
    enum State<F, K, A> {
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
    #[inline(always)]
    pub(super) fn new(call: S::Future, kept: A::Kept, policy: Share<FallbackLayer<A>>) -> Self {
        Self {
            policy,
            state: State::Calling {
                call,
                kept: Some(kept),
            },
        }
    }
}

impl<S, A, Req> Future for FallbackFuture<S, A, Req>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let answer = match this.state.as_mut().project() {
                StateProj::Calling { call, kept } => {
                    let result = ready!(call.poll(cx));
                    let kept = kept.take().expect("polled after completion");
                    if !this.policy.answer.applies(result.as_ref()) {
                        return Poll::Ready(result);
                    }
                    this.policy.answer.answer(kept, result)
                }
                StateProj::Answering { answer } => {
                    let result = ready!(answer.poll(cx));
                    if result.is_ok() {
                        let fallback = &*this.policy.name;
                        this.policy.observer.emit(&Event::FellBack { fallback });
                    }
                    return Poll::Ready(result);
                }
            };
            this.state.set(State::Answering { answer });
        }
    }
}
