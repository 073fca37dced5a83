//! Tries a failed call again, within a budget, a deadline and reason. See the [guide](crate::docs::layers::retry).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use buttress::BoxError;
//! use buttress::layers::retry::RetryLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let calls = AtomicU32::new(0);
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .service_fn(|name: String| {
//!         let call = calls.fetch_add(1, Ordering::Relaxed);
//!         async move {
//!             match call {
//!                 0 => Err(BoxError::from("connection reset")),
//!                 _ => Ok(format!("hello {name}")),
//!             }
//!         }
//!     });
//! assert_eq!(service.oneshot("world".to_owned()).await.unwrap(), "hello world");
//! # }
//! ```
//!
//! What is tried again is decided by [`Rules`]: the default [`RetryErrors`], a closure, or rules of your own, which
//! can also copy a request that is not `Clone`.
//!
//! The service is our own: tower's `Retry` copies the request for the last attempt too, and the readiness error of a
//! later attempt takes the place of what the peer said.

mod future;
mod layer;
mod plan;
mod rules;
mod service;
mod settings;
mod shared;

pub use future::RetryFuture;
pub use layer::RetryLayer;
pub(crate) use plan::Plan;
pub use rules::{Decision, RetryErrors, Rules};
pub use service::Retry;
pub(crate) use shared::Shared;
