use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tower::{Layer, Service};

use super::{Answer, FallbackFuture, FromFn, FromRequest, Other, Value, When};
use crate::algo::lanes::Spread;
use crate::observe::Observer;

/// Answers in place of failed calls.
#[derive(Clone, Debug)]
pub struct FallbackLayer<A> {
    pub(super) answer: A,
    pub(super) name: Arc<str>,
    pub(super) observer: Observer,
}

impl<A> FallbackLayer<A> {
    /// Answers with `answer`.
    pub fn new(answer: A) -> Self {
        Self {
            answer,
            name: Arc::from("fallback"),
            observer: Observer::default(),
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
            name: self.name,
            observer: self.observer,
        }
    }

    /// Says whose answers these are, to the observer. The default is `fallback`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Tells `observer` of each answer given in place of a failed call.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
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
            policy: Spread::new(self.clone()),
        }
    }
}

/// The service of a [`FallbackLayer`].
#[derive(Debug)]
pub struct Fallback<S, A> {
    inner: S,
    policy: Spread<FallbackLayer<A>>,
}

impl<S: Clone, A> Clone for Fallback<S, A> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
        }
    }
}

impl<S, A, Req> Service<Req> for Fallback<S, A>
where
    S: Service<Req> + Clone,
    A: Answer<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FallbackFuture<S, A, Req>;

    /// Always ready. Each call asks for the inner service's readiness, so that an error of it has a request to answer.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let kept = self.policy.answer.keep(&request);
        let policy = self.policy.share();
        // A look without a waker: if it is not ready, the future asks again with its own.
        match self
            .inner
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(())) => FallbackFuture::new(self.inner.call(request), kept, policy),
            Poll::Ready(Err(error)) => FallbackFuture::unready(error, kept, policy),
            Poll::Pending => {
                // What was asked goes with the call, so that the one that stays here holds nothing.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                FallbackFuture::readying(inner, request, kept, policy)
            }
        }
    }
}
