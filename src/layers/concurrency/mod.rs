//! A limit on calls under way that finds itself. See the [guide](crate::docs::layers::concurrency).
//!
//! Where a [bulkhead](super::bulkhead) is told how many calls a peer can bear, a [`ConcurrencyLimit`] finds out: it
//! measures each call and asks a [`Limit`](crate::algo::limit::Limit) of [`algo::limit`](crate::algo::limit) for more
//! or for fewer. What is above the limit is refused at once, or waits in a [queue](ConcurrencyLimit::queue) whose length
//! follows the limit; calls of the lowest [`Priority`] are shed first.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::algo::limit::Vegas;
//! use buttress::layers::concurrency::{ConcurrencyLimit, Priority};
//! use buttress::{BoxError, Rejected};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! struct Request { user_waits: bool }
//!
//! let limit = ConcurrencyLimit::new("orders", Vegas::new(2));
//! let layer = limit.layer().priority(|request: &Request| {
//!     if request.user_waits { Priority::Critical } else { Priority::Low }
//! });
//! let mut service = ServiceBuilder::new()
//!     .layer(layer)
//!     .service_fn(|_: Request| async {
//!         tokio::time::sleep(Duration::from_millis(20)).await;
//!         Ok::<_, BoxError>("done")
//!     });
//!
//! let mut call = |user_waits| service.call(Request { user_waits });
//! let first = call(false);
//! // The rest of the limit is kept for those who matter more.
//! let error = call(false).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().is_full());
//! assert_eq!(tokio::try_join!(first, call(true)).unwrap(), ("done", "done"));
//! # }
//! ```
//!
//! What counts: the latency of a success, and each overload that the peer tells of. A failure, a call that is dropped
//! and one that panics say little by themselves: a peer that fails fast is not a fast one, and a caller may leave for
//! reasons of its own. But whoever gave up after longer than an answer usually takes met an overload, so such a call
//! counts as a drop. A timeout therefore shrinks the limit, wherever it stands.

mod acquire;
mod future;
mod handle;
mod layer;
mod permit;
mod priority;
mod service;

pub use future::ConcurrencyFuture;
pub use handle::{ConcurrencyLimit, Figures};
pub use layer::ConcurrencyLayer;
pub use permit::Permit;
pub use priority::{AllEqual, Fair, Prioritise, Priority, UnknownPriority};
pub use service::ConcurrencyService;
