//! Makes one call of many: of those that ask for the same, or of those that a peer can answer together.
//! See the [guide](crate::docs::layers::coalesce).
//!
//! A [`CoalesceLayer`] has one call under way for each key. Who asks for the same key meanwhile waits for that call and
//! gets a copy of its answer. It protects a peer from a herd: a cache entry that expires, a page that everybody opens.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use buttress::BoxError;
//! use buttress::layers::coalesce::CoalesceLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let calls = AtomicU32::new(0);
//! let prices = ServiceBuilder::new()
//!     .layer(CoalesceLayer::new(|sku: &u64| *sku))
//!     .service_fn(|sku: u64| {
//!         calls.fetch_add(1, Ordering::Relaxed);
//!         async move {
//!             tokio::time::sleep(Duration::from_millis(20)).await;
//!             Ok::<_, BoxError>(format!("{sku} costs 350"))
//!         }
//!     });
//! let (a, b) = tokio::join!(prices.clone().oneshot(7), prices.clone().oneshot(7));
//! assert_eq!(a.unwrap(), b.unwrap());
//! assert_eq!(calls.load(Ordering::Relaxed), 1);
//! # }
//! ```
//!
//! A [`BatchLayer`] gathers different requests for a moment and sends them as one: see [`Batch`].
//!
//! The call belongs to all who wait for it and to none of them. One of them polls it; when that one is cancelled, the
//! next goes on with it, and when the last is gone it is dropped. No one's [`Deadline`](crate::Deadline) rules it: each
//! caller leaves at its own. No task is spawned, and nobody is woken before there is something for them.

mod batch;
mod batch_call;
mod batch_layer;
mod flight;
mod future;
mod gathering;
mod keyed;
mod layer;
mod share;

pub use batch::Batch;
pub use batch_layer::{BatchLayer, BatchService};
pub use future::CoalesceFuture;
pub use layer::{Coalesce, CoalesceLayer};
pub use share::{Share, ShareErrors};
