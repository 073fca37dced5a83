use std::future::Pending;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::Answer;
use crate::admitted::{Admitted, Entry};
use crate::algo::lanes::Along;
use crate::clock;
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
        state: State<Call<S, Req, A::Kept>, A::Future>,
    }
}

/// What is kept of the request goes through the call like a permit. Nobody waits for it.
type Call<S, Req, Kept> = Admitted<
    Pending<Result<Kept, <S as Service<Req>>::Error>>,
    Kept,
    S,
    Req,
    <S as Service<Req>>::Future,
    <S as Service<Req>>::Error,
>;

pin_project! {
    // Calling ─▶ Answering
    #[project = StateProj]
    enum State<C, A> {
        Calling {
            #[pin]
            call: C,
        },
        Answering {
            #[pin]
            answer: A,
        },
    }
}

impl<S, A, Req> FallbackFuture<S, A, Req>
where
    S: Service<Req> + Clone,
    A: Answer<Req, S::Response, S::Error>,
{
    #[inline(always)]
    pub(super) fn new(
        inner: &mut S,
        request: Req,
        kept: A::Kept,
        answer: Along<A>,
        who: Who,
    ) -> Self {
        let call = Admitted::new(Ok(Entry::Now(kept)), inner, request);
        Self {
            state: State::Calling { call },
            answer,
            who,
        }
    }

    /// Of a call that was begun elsewhere.
    pub(crate) fn calling(call: S::Future, kept: A::Kept, answer: Along<A>, who: Who) -> Self {
        let call = Admitted::Running {
            inner: call,
            permit: Some(kept),
        };
        Self {
            state: State::Calling { call },
            answer,
            who,
        }
    }

    /// Of an answer that was begun elsewhere.
    pub(crate) fn answering(future: A::Future, answer: Along<A>, who: Who) -> Self {
        Self {
            state: State::Answering { answer: future },
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
            match this.state.as_mut().project() {
                StateProj::Calling { call } => {
                    let (result, kept) = ready!(clock::poll(|| call.poll(cx)));
                    let kept = kept.expect("kept for the whole call");
                    if !this.answer.applies(result.as_ref()) {
                        if let Ok(response) = &result {
                            this.answer.passes(kept, response);
                        }
                        return Poll::Ready(result);
                    }
                    let answer = this.answer.answer(kept, result);
                    this.state.set(State::Answering { answer });
                }
                StateProj::Answering { answer } => {
                    let result = ready!(answer.poll(cx));
                    // What came back as it was is no answer.
                    let answered = result.is_ok() && !this.answer.applies(result.as_ref());
                    if let (true, Some(who)) = (answered, this.who.known()) {
                        let fallback = who.name.as_deref().unwrap_or("fallback");
                        who.observer.emit(&Event::FellBack { fallback });
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}
