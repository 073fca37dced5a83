use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Answer, FallbackFuture, FromFn, FromRequest, Other, Value, When};
use crate::algo::lanes::Spread;
use crate::observe::{Observer, Who};

/// Answers in place of failed calls.
#[derive(Clone, Debug)]
pub struct FallbackLayer<A> {
    answer: A,
    who: Who,
}

impl<A> FallbackLayer<A> {
    /// Answers with `answer`.
    pub fn new(answer: A) -> Self {
        Self {
            answer,
            who: Who::default(),
        }
    }

    /// Answers only in place of the results that `applies` says yes to, which may be responses. By default those are
    /// the errors, refusals by layers inside included.
    ///
    /// ```
    /// use buttress::{BoxError, Rejected};
    /// use buttress::layers::fallback::FallbackLayer;
    ///
    /// let layer = FallbackLayer::value(204).when(|result: Result<&u16, &BoxError>| match result {
    ///     Ok(status) => *status == 503,
    ///     Err(error) => Rejected::find(&**error).is_some_and(Rejected::is_open),
    /// });
    /// ```
    #[must_use]
    pub fn when<P, Res, E>(self, applies: P) -> FallbackLayer<When<A, P>>
    where
        P: Fn(Result<&Res, &E>) -> bool,
    {
        FallbackLayer {
            answer: When {
                answer: self.answer,
                applies,
            },
            who: self.who,
        }
    }

    /// Says whose answers these are, to the observer. The default is `fallback`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.who.change().name = Some(name.into());
        self
    }

    /// Tells `observer` of each answer given in place of a failed call.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.who.change().observer = observer.into();
        self
    }
}

impl<T> FallbackLayer<Value<T>> {
    /// Answers with copies of `value`.
    pub fn value(value: T) -> Self {
        Self::new(Value(value))
    }
}

impl<F> FallbackLayer<FromFn<F>> {
    /// Answers with what `answer` makes of the failed result. What it has no answer for it returns as it is.
    pub fn from_fn<Res, E>(answer: F) -> Self
    where
        F: Fn(Result<Res, E>) -> Result<Res, E>,
    {
        Self::new(FromFn(answer))
    }
}

impl<K, F> FallbackLayer<FromRequest<K, F>> {
    /// Answers with what `answer` makes of what `keep` took from the request, and of the failed result.
    ///
    /// `keep` runs for every call: let it take an id, not the whole request.
    ///
    /// ```
    /// use buttress::BoxError;
    /// use buttress::layers::fallback::FallbackLayer;
    ///
    /// let layer = FallbackLayer::from_request(
    ///     |path: &String| path.len(),
    ///     |length, failed: Result<String, BoxError>| match length {
    ///         0 => failed,
    ///         _ => Ok(format!("nothing to see at a path of {length} bytes")),
    ///     },
    /// );
    /// ```
    pub fn from_request<Req, Kept, Res, E>(keep: K, answer: F) -> Self
    where
        K: Fn(&Req) -> Kept,
        F: Fn(Kept, Result<Res, E>) -> Result<Res, E>,
    {
        Self::new(FromRequest { keep, answer })
    }
}

impl<K, S> FallbackLayer<Other<K, S>> {
    /// Answers with what `service` answers to the request that `keep` makes of the original, before that is sent.
    ///
    /// The copy is yours to write, `Request::clone` or cheaper, because every call pays for it. What the other
    /// service answers is final, its error too: there is no first error any more.
    ///
    /// ```
    /// # use buttress::BoxError;
    /// # use buttress::layers::fallback::FallbackLayer;
    /// # use tower::service_fn;
    /// let replica = service_fn(|key: String| async move { Ok::<_, BoxError>(key.len()) });
    /// let layer = FallbackLayer::service(String::clone, replica);
    /// ```
    pub fn service<Req, Kept>(keep: K, service: S) -> Self
    where
        K: Fn(&Req) -> Kept,
        S: Service<Kept> + Clone,
    {
        Self::new(Other { keep, service })
    }
}

impl<S, A: Clone> Layer<S> for FallbackLayer<A> {
    type Service = Fallback<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        Fallback {
            inner,
            answer: Spread::new(self.answer.clone()),
            who: self.who.clone(),
        }
    }
}

/// The service of a [`FallbackLayer`].
#[derive(Debug)]
pub struct Fallback<S, A> {
    pub(crate) inner: S,
    pub(crate) answer: Spread<A>,
    pub(crate) who: Who,
}

impl<S: Clone, A> Clone for Fallback<S, A> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            answer: self.answer.clone(),
            who: self.who.clone(),
        }
    }
}

impl<S, A, Req> Service<Req> for Fallback<S, A>
where
    S: Service<Req> + Clone,
    A: Answer<Req, S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FallbackFuture<S, A, Req>;

    /// Always ready. Each call asks for the inner service's readiness, so that an error of it has a request to answer.
    #[inline(always)]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let kept = self.answer.keep(&request);
        let (answer, who) = (self.answer.along(), self.who.clone());
        FallbackFuture::new(&mut self.inner, request, kept, answer, who)
    }
}
