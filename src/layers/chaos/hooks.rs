use std::fmt;

/// Which requests may be troubled.
pub trait Choose<Req> {
    /// Whether this one may.
    fn chooses(&self, request: &Req) -> bool;
}

impl<F: Fn(&Req) -> bool, Req> Choose<Req> for F {
    fn chooses(&self, request: &Req) -> bool {
        self(request)
    }
}

/// Every request, unless [`when`](super::ChaosLayer::when) says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Always;

impl<Req> Choose<Req> for Always {
    fn chooses(&self, _: &Req) -> bool {
        true
    }
}

/// How a call ends that is to fail.
pub trait Fail<Res, E> {
    /// The end of the next one.
    fn end(&self) -> Result<Res, E>;
}

/// The error of a call that was made to fail, unless [`error`](super::ChaosLayer::error) or
/// [`answer`](super::ChaosLayer::answer) says otherwise. It is no [`Rejected`](crate::Rejected): breakers and balancers
/// are to take it for a failure of the peer.
#[derive(Clone, Copy, Debug)]
pub struct Injected;

impl<Res, E: From<Self>> Fail<Res, E> for Injected {
    fn end(&self) -> Result<Res, E> {
        Err(Self.into())
    }
}

/// An error of your own; see [`ChaosLayer::error`](super::ChaosLayer::error).
#[derive(Clone, Copy, Debug)]
pub struct WithError<F>(pub(super) F);

impl<F: Fn() -> E, Res, E> Fail<Res, E> for WithError<F> {
    fn end(&self) -> Result<Res, E> {
        Err(self.0())
    }
}

/// An answer that is a failure; see [`ChaosLayer::answer`](super::ChaosLayer::answer).
#[derive(Clone, Copy, Debug)]
pub struct WithAnswer<F>(pub(super) F);

impl<F: Fn() -> Res, Res, E> Fail<Res, E> for WithAnswer<F> {
    fn end(&self) -> Result<Res, E> {
        Ok(self.0())
    }
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed on purpose")
    }
}

impl std::error::Error for Injected {}

/// How an answer is cut short.
pub trait Cut<Res> {
    /// What becomes of an answer, cut or not.
    type Response;

    /// Whether there is a way to.
    fn can_cut(&self) -> bool {
        true
    }

    /// The answer, cut short if `cut` says so.
    fn pass(&self, response: Res, cut: bool) -> Self::Response;
}

impl<F: Fn(Res, bool) -> Out, Res, Out> Cut<Res> for F {
    type Response = Out;

    fn pass(&self, response: Res, cut: bool) -> Out {
        self(response, cut)
    }
}

/// No answer is cut, unless [`cut`](super::ChaosLayer::cut) says how.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl<Res> Cut<Res> for Whole {
    type Response = Res;

    fn can_cut(&self) -> bool {
        false
    }

    fn pass(&self, response: Res, _: bool) -> Res {
        response
    }
}
