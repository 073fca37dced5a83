use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::held::{Held, Panics, Rest, Shared, Verdict};
use crate::classify::Classify;
use crate::clock;
use crate::error::Rejected;
use crate::layers::fallback::Answer;
use crate::layers::retry::Rules;
use crate::layers::timeout::{Limits, TimeoutFuture};

pin_project! {
    /// The future of a [`Pipeline`](super::Pipeline).
    pub struct PipelineFuture<S, A, R, C, L, Req>
    where
        S: Service<Req>,
        S: Clone,
        S::Error: From<Rejected>,
        A: Answer<Req, S::Response, S::Error>,
        R: Rules<Req, S::Response, S::Error>,
        C: Classify<S::Response, S::Error>,
        C: Clone,
        L: Limits<Req>,
        L: Clone,
    {
        // The first attempt ─▶ over, or else the layers.
        held: Option<Held<Shared<S, A, R, C, L>, Req, A::Kept>>,
        #[pin]
        attempt: TimeoutFuture<S::Future>,
        #[pin]
        layers: Option<Rest<S, A, R, C, L, Req>>,
    }

    impl<S, A, R, C, L, Req> PinnedDrop for PipelineFuture<S, A, R, C, L, Req>
    where
        S: Service<Req>,
        S: Clone,
        S::Error: From<Rejected>,
        A: Answer<Req, S::Response, S::Error>,
        R: Rules<Req, S::Response, S::Error>,
        C: Classify<S::Response, S::Error>,
        C: Clone,
        L: Limits<Req>,
        L: Clone,
    {
        fn drop(this: Pin<&mut Self>) {
            if this.held.is_some() {
                this.cancel();
            }
        }
    }
}

impl<S, A, R, C, L, Req> PipelineFuture<S, A, R, C, L, Req>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error>,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    #[inline(always)]
    pub(super) fn first(
        held: Held<Shared<S, A, R, C, L>, Req, A::Kept>,
        attempt: TimeoutFuture<S::Future>,
    ) -> Self {
        Self {
            held: Some(held),
            attempt,
            layers: None,
        }
    }

    pub(super) fn layers(layers: Rest<S, A, R, C, L, Req>) -> Self {
        Self {
            held: None,
            attempt: TimeoutFuture::ended(),
            layers: Some(layers),
        }
    }

    /// Counted before what it holds is torn down, and that before its slot is another's.
    #[cold]
    fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let Some(held) = this.held {
            let slot = held.cancel();
            this.attempt.set(TimeoutFuture::ended());
            drop(slot);
        }
    }
}

impl<S, A, R, C, L, Req> Future for PipelineFuture<S, A, R, C, L, Req>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error> + Clone,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(held) = this.held {
            let panics = Panics(&mut *held);
            let polled = clock::poll(|| this.attempt.as_mut().poll(cx));
            mem::forget(panics);
            let Poll::Ready(result) = polled else {
                held.pend();
                return Poll::Pending;
            };
            this.attempt.set(TimeoutFuture::ended());
            let verdict = held.end(&result);
            if let Verdict::Pass = verdict {
                // A call that is over holds nothing, however long its future is kept.
                *this.held = None;
                return Poll::Ready(result);
            }
            let next = held.go_on(verdict, result);
            *this.held = None;
            match next {
                Ok(result) => return Poll::Ready(result),
                Err(layers) => this.layers.set(Some(layers)),
            }
        }
        poll_layers(this.layers, cx)
    }
}

#[inline(never)]
fn poll_layers<F: Future>(layers: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let layers = layers.as_pin_mut();
    layers.expect("polled after completion").poll(cx)
}

impl<S, A, R, C, L, Req> fmt::Debug for PipelineFuture<S, A, R, C, L, Req>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejected>,
    A: Answer<Req, S::Response, S::Error>,
    R: Rules<Req, S::Response, S::Error>,
    C: Classify<S::Response, S::Error> + Clone,
    L: Limits<Req> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineFuture").finish_non_exhaustive()
    }
}
