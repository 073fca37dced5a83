use std::future::{Ready, ready};

use tower::Service;
use tower::util::{Oneshot, ServiceExt};

/// What to answer in place of a failed call.
pub trait Answer<Req, Res, E> {
    /// What is kept of the request while it is under way.
    type Kept;
    /// The answer to come.
    type Future: Future<Output = Result<Res, E>>;

    /// Takes from the request, before it is sent, what the answer needs of it.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// Whether `result` wants an answer in its place. Every error does, refusals by layers inside included, unless
    /// this says otherwise.
    fn applies(&self, result: Result<&Res, &E>) -> bool {
        result.is_err()
    }

    /// Sees a response that wants no answer, on its way to the caller. Does nothing unless this says otherwise.
    #[inline]
    fn passes(&self, _kept: Self::Kept, _response: &Res) {}

    /// Answers in place of `failed`, which may be an error of the service's readiness.
    fn answer(&self, kept: Self::Kept, failed: Result<Res, E>) -> Self::Future;
}

/// A value; see [`FallbackLayer::value`](super::FallbackLayer::value).
#[derive(Clone, Copy, Debug)]
pub struct Value<T>(pub(super) T);

impl<Req, Res: Clone, E> Answer<Req, Res, E> for Value<Res> {
    type Kept = ();
    type Future = Ready<Result<Res, E>>;

    fn keep(&self, _: &Req) {}

    fn answer(&self, (): (), _: Result<Res, E>) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// A function of the failure; see [`FallbackLayer::from_fn`](super::FallbackLayer::from_fn).
#[derive(Clone, Copy, Debug)]
pub struct FromFn<F>(pub(super) F);

impl<F, Req, Res, E> Answer<Req, Res, E> for FromFn<F>
where
    F: Fn(Result<Res, E>) -> Result<Res, E>,
{
    type Kept = ();
    type Future = Ready<Result<Res, E>>;

    fn keep(&self, _: &Req) {}

    fn answer(&self, (): (), failed: Result<Res, E>) -> Self::Future {
        ready((self.0)(failed))
    }
}

/// A function of request and failure; see [`FallbackLayer::from_request`](super::FallbackLayer::from_request).
#[derive(Clone, Copy, Debug)]
pub struct FromRequest<K, F> {
    pub(super) keep: K,
    pub(super) answer: F,
}

impl<K, F, Kept, Req, Res, E> Answer<Req, Res, E> for FromRequest<K, F>
where
    K: Fn(&Req) -> Kept,
    F: Fn(Kept, Result<Res, E>) -> Result<Res, E>,
{
    type Kept = Kept;
    type Future = Ready<Result<Res, E>>;

    fn keep(&self, request: &Req) -> Kept {
        (self.keep)(request)
    }

    fn answer(&self, kept: Kept, failed: Result<Res, E>) -> Self::Future {
        ready((self.answer)(kept, failed))
    }
}

/// Another service; see [`FallbackLayer::service`](super::FallbackLayer::service).
#[derive(Clone, Copy, Debug)]
pub struct Other<K, S> {
    pub(super) keep: K,
    pub(super) service: S,
}

impl<K, S, Kept, Req, Res, E> Answer<Req, Res, E> for Other<K, S>
where
    K: Fn(&Req) -> Kept,
    S: Service<Kept, Response = Res, Error = E> + Clone,
{
    type Kept = Kept;
    type Future = Oneshot<S, Kept>;

    fn keep(&self, request: &Req) -> Kept {
        (self.keep)(request)
    }

    fn answer(&self, kept: Kept, _: Result<Res, E>) -> Self::Future {
        self.service.clone().oneshot(kept)
    }
}

/// An answer to chosen failures; see [`FallbackLayer::when`](super::FallbackLayer::when).
#[derive(Clone, Copy, Debug)]
pub struct When<A, P> {
    pub(super) answer: A,
    pub(super) applies: P,
}

impl<A, P, Req, Res, E> Answer<Req, Res, E> for When<A, P>
where
    A: Answer<Req, Res, E>,
    P: Fn(Result<&Res, &E>) -> bool,
{
    type Kept = A::Kept;
    type Future = A::Future;

    fn keep(&self, request: &Req) -> A::Kept {
        self.answer.keep(request)
    }

    fn applies(&self, result: Result<&Res, &E>) -> bool {
        (self.applies)(result)
    }

    #[inline]
    fn passes(&self, kept: A::Kept, response: &Res) {
        self.answer.passes(kept, response);
    }

    fn answer(&self, kept: A::Kept, failed: Result<Res, E>) -> A::Future {
        self.answer.answer(kept, failed)
    }
}
