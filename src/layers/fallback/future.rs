use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Answer;
use crate::algo::lanes::Along;
use crate::observe::{Event, Who};

pin_project! {
    /// The future of a [`Fallback`](super::Fallback).
    pub struct FallbackFuture<S, A, Req>
    where
        S: Service<Req>,
        A: Answer<Req, S::Response, S::Error>,
    {
        answer: Along<A>,
        who: Who,
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
    pub(super) fn new(kept: A::Kept, answer: Along<A>, who: Who, call: S::Future) -> Self {
        Self {
            state: State::Calling {
                call,
                kept: Some(kept),
            },
            answer,
            who,
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
                    if !this.answer.applies(result.as_ref()) {
                        return Poll::Ready(result);
                    }
                    let kept = kept.take().expect("answered once");
                    this.answer.answer(kept, result)
                }
                StateProj::Answering { answer } => {
                    let result = ready!(answer.poll(cx));
                    if let (Ok(_), Some(observer)) = (&result, this.who.observer()) {
                        let fallback = this.who.name().unwrap_or("fallback");
                        observer.emit(&Event::FellBack { fallback });
                    }
                    return Poll::Ready(result);
                }
            };
            this.state.set(State::Answering { answer });
        }
    }
}
