use std::fmt;
use std::time::Duration;

/// How long the call of a request may take.
pub trait Limits<Req> {
    /// The limit of this request, if it is not the layer's own.
    fn limit(&self, request: &Req) -> Option<Duration>;
}

/// The layer's limit for all; see [`TimeoutLayer::new`](super::TimeoutLayer::new).
#[derive(Clone, Copy, Debug)]
pub struct Fixed;

impl<Req> Limits<Req> for Fixed {
    #[inline]
    fn limit(&self, _: &Req) -> Option<Duration> {
        None
    }
}

/// A limit that the request may say; see [`TimeoutLayer::by`](super::TimeoutLayer::by).
#[derive(Clone, Copy)]
pub struct By<F>(pub(super) F);

impl<F, Req> Limits<Req> for By<F>
where
    F: Fn(&Req) -> Option<Duration>,
{
    #[inline]
    fn limit(&self, request: &Req) -> Option<Duration> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for By<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By")
    }
}
