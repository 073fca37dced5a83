use http::Request;

use crate::layers::concurrency::{Prioritise, Priority};

/// A request matters as much as the [`Priority`] among its extensions says; without one, it is
/// [`Normal`](Priority::Normal).
///
/// ```
/// use axum::{body::Body, http::Request};
/// use buttress::algo::limit::Adaptive;
/// use buttress::layers::concurrency::{ConcurrencyLimit, Prioritise, Priority};
/// use buttress::transport::http::ByExtension;
///
/// let limit = ConcurrencyLimit::new("orders", Adaptive::new(20));
/// let layer = limit.layer().priority(ByExtension);
///
/// // At the edge, from what you know of the caller; from hop to hop, by a header of your own.
/// let mut request = Request::get("/orders/7").header("x-importance", "high").body(Body::empty()).unwrap();
/// let said = request.headers().get("x-importance").and_then(|it| it.to_str().ok()?.parse().ok());
/// request.extensions_mut().insert(said.unwrap_or(Priority::Normal));
/// assert_eq!(ByExtension.priority(&request), Priority::High);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByExtension;

impl<B> Prioritise<Request<B>> for ByExtension {
    fn priority(&self, request: &Request<B>) -> Priority {
        request.extensions().get().copied().unwrap_or_default()
    }
}
