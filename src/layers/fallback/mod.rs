//! Answers in place of a service that failed or refused. See the [guide](crate::docs::layers::fallback).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use buttress::BoxError;
//! use buttress::layers::fallback::FallbackLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let service = ServiceBuilder::new()
//!     .layer(FallbackLayer::value("no recommendations today"))
//!     .service_fn(|_: u64| async { Err(BoxError::from("connection reset")) });
//! assert_eq!(service.oneshot(7).await.unwrap(), "no recommendations today");
//! # }
//! ```
//!
//! The answer is a value, a function of the failure, a function of the failure and of something kept from the
//! request, another service, or the [last good answer](LastGood) to the same question. Of the request nothing is kept
//! but what is asked for. Several layers make a chain: the innermost answers first, and what it cannot answer goes to
//! the next.

mod answer;
mod future;
mod last_good;
mod layer;
mod shelves;

pub use answer::{Answer, FromFn, FromRequest, Other, Value, When};
pub use future::FallbackFuture;
pub use last_good::LastGood;
pub use layer::{Fallback, FallbackLayer};
