use std::fmt;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::hooks::{Always, Choose, Cut, Fail, Injected, Whole, WithAnswer, WithError};
use super::{Chaos, ChaosFuture};
use crate::algo::faults::Fault;

/// Troubles the calls of a service; made by [`Chaos::layer`].
#[derive(Clone)]
pub struct ChaosLayer<P, E, C> {
    chaos: Chaos,
    when: P,
    fail: E,
    cut: C,
}

impl ChaosLayer<Always, Injected, Whole> {
    pub(super) fn new(chaos: Chaos) -> Self {
        Self {
            chaos,
            when: Always,
            fail: Injected,
            cut: Whole,
        }
    }
}

impl<P, E, C> ChaosLayer<P, E, C> {
    /// Troubles only the requests that `chosen` says yes to; the shares are of those. Default all.
    #[must_use]
    pub fn when<Req, F>(self, chosen: F) -> ChaosLayer<F, E, C>
    where
        F: Fn(&Req) -> bool,
    {
        ChaosLayer {
            chaos: self.chaos,
            when: chosen,
            fail: self.fail,
            cut: self.cut,
        }
    }

    /// Makes the error of a call that is to fail. Default [`Injected`], for error types that can hold any.
    #[must_use]
    pub fn error<Err, F>(self, error: F) -> ChaosLayer<P, WithError<F>, C>
    where
        F: Fn() -> Err,
    {
        self.fail(WithError(error))
    }

    /// Makes the answer of a call that is to fail, where that is how the peer would: a 503, or a 429 with a
    /// `Retry-After`. It is what comes out of this layer, and is not cut.
    #[must_use]
    pub fn answer<Res, F>(self, answer: F) -> ChaosLayer<P, WithAnswer<F>, C>
    where
        F: Fn() -> Res,
    {
        self.fail(WithAnswer(answer))
    }

    fn fail<F>(self, fail: F) -> ChaosLayer<P, F, C> {
        ChaosLayer {
            chaos: self.chaos,
            when: self.when,
            fail,
            cut: self.cut,
        }
    }

    /// Passes every answer through `cut`, which cuts it short if it is told so. It may change its type, as it must
    /// where a body is put into another. Default none is cut.
    #[must_use]
    pub fn cut<Res, Out, F>(self, cut: F) -> ChaosLayer<P, E, F>
    where
        F: Fn(Res, bool) -> Out,
    {
        ChaosLayer {
            chaos: self.chaos,
            when: self.when,
            fail: self.fail,
            cut,
        }
    }
}

impl<S, P: Clone, E: Clone, C: Clone> Layer<S> for ChaosLayer<P, E, C> {
    type Service = ChaosService<S, P, E, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ChaosService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<P, E, C> fmt::Debug for ChaosLayer<P, E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosLayer")
            .field("chaos", &self.chaos)
            .finish_non_exhaustive()
    }
}

/// The service of a [`ChaosLayer`]. It is ready when the service inside is.
#[derive(Clone, Debug)]
pub struct ChaosService<S, P, E, C> {
    inner: S,
    layer: ChaosLayer<P, E, C>,
}

impl<S, P, E, C, Req> Service<Req> for ChaosService<S, P, E, C>
where
    S: Service<Req>,
    P: Choose<Req>,
    E: Fail<C::Response, S::Error>,
    C: Cut<S::Response> + Clone,
{
    type Response = C::Response;
    type Error = S::Error;
    type Future = ChaosFuture<S::Future, C, Result<C::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let ChaosLayer {
            chaos,
            when,
            fail,
            cut,
        } = &self.layer;
        let (delay, fault) = match when.chooses(&request) {
            true => chaos.draw(),
            false => (None, None),
        };
        let fault = fault.filter(|it| *it != Fault::Cut || cut.can_cut());
        if delay.is_some() && fault != Some(Fault::Hang) {
            chaos.tell("latency");
        }
        if let Some(fault) = fault {
            chaos.tell(word(fault));
        }
        match fault {
            Some(Fault::Error) => ChaosFuture::over(fail.end(), delay),
            Some(Fault::Hang) => ChaosFuture::hung(),
            Some(Fault::Cut) | None => {
                let inner = self.inner.call(request);
                ChaosFuture::calling(inner, cut.clone(), fault.is_some(), delay)
            }
        }
    }
}

fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Error => "error",
        Fault::Hang => "hang",
        Fault::Cut => "cut",
    }
}
