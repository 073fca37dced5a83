/// Copies the requests that may be sent twice.
///
/// A closure will do. Where requests are `Clone` and all of them may be sent twice, the default [`Cloned`] does.
///
/// ```
/// use std::time::Duration;
/// use buttress::layers::hedge::HedgeLayer;
///
/// struct Request { method: &'static str, attempt: u32 }
///
/// let layer = HedgeLayer::new(Duration::from_millis(50)).copy(|request: &Request, attempt| {
///     (request.method == "GET").then_some(Request { method: request.method, attempt })
/// });
/// ```
pub trait CopyRequest<Req> {
    /// A copy of `request` to send as attempt number `attempt`, 2 for the first hedge. The first attempt is the request
    /// itself, untouched.
    ///
    /// `None` if it cannot be copied or must not be sent twice: this is the last attempt then.
    fn copy(&self, request: &Req, attempt: u32) -> Option<Req>;
}

impl<F, Req> CopyRequest<Req> for F
where
    F: Fn(&Req, u32) -> Option<Req>,
{
    fn copy(&self, request: &Req, attempt: u32) -> Option<Req> {
        self(request, attempt)
    }
}

/// The default: every request may be sent twice, and is cloned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned;

impl<Req: Clone> CopyRequest<Req> for Cloned {
    fn copy(&self, request: &Req, _: u32) -> Option<Req> {
        Some(request.clone())
    }
}
