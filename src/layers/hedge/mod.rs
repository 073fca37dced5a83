//! Sends a slow request a second time, and takes the answer that comes first.
//! See the [guide](crate::docs::layers::hedge).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use buttress::BoxError;
//! use buttress::layers::hedge::HedgeLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let calls = AtomicU32::new(0);
//! let service = ServiceBuilder::new()
//!     .layer(HedgeLayer::new(Duration::from_millis(50)))
//!     .service_fn(|name: String| {
//!         let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
//!         async move {
//!             // A pause of the first instance.
//!             tokio::time::sleep(Duration::from_millis(if first { 900 } else { 10 })).await;
//!             Ok::<_, BoxError>(format!("hello {name}"))
//!         }
//!     });
//! let start = tokio::time::Instant::now();
//! assert_eq!(service.oneshot("world".to_owned()).await.unwrap(), "hello world");
//! assert!(start.elapsed() < Duration::from_millis(100));
//! # }
//! ```
//!
//! When a hedge is due is fixed, or follows the latency of the calls: see [`Delay`]. An attempt that fails makes the
//! next one due at once. The first answer wins and the other attempts are dropped; a failure never wins while another
//! attempt is under way. How many hedges there may be is bounded by a [`RetryBudget`](crate::budget::RetryBudget).

mod copy;
mod delay;
mod future;
mod layer;
mod plan;
mod service;
mod settings;

pub use copy::{Cloned, CopyRequest};
pub use delay::{Delay, LiveQuantile};
pub use future::HedgeFuture;
pub use layer::HedgeLayer;
pub use service::Hedge;
