//! Fallback, retry, circuit breaker, bulkhead and timeout as one layer. See the [guide](crate::docs::pipeline).
//!
//! A [`PipelineLayer`] does what these layers do one inside the other, for less: a call that finds nothing in its way, and
//! whose first attempt succeeds, goes through one future. All others go through the futures of the layers themselves, from
//! where they are.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! use std::time::Duration;
//! use buttress::BoxError;
//! use buttress::algo::breaker::Settings;
//! use buttress::layers::bulkhead::Bulkhead;
//! use buttress::layers::circuit_breaker::CircuitBreaker;
//! use buttress::layers::fallback::FallbackLayer;
//! use buttress::layers::retry::RetryLayer;
//! use buttress::layers::timeout::TimeoutLayer;
//! use buttress::pipeline::PipelineLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let prices = ServiceBuilder::new()
//!     .layer(PipelineLayer::new(
//!         FallbackLayer::value(350),
//!         RetryLayer::new(3),
//!         CircuitBreaker::new("prices", Settings::default()).layer(),
//!         Bulkhead::new("prices", 64).layer(),
//!         TimeoutLayer::new(Duration::from_millis(500)),
//!     ))
//!     .service_fn(|_km: u64| async { Err::<u64, BoxError>("connection reset".into()) });
//! assert_eq!(prices.oneshot(10).await?, 350);
//! # Ok(())
//! # }
//! ```

mod future;
mod held;
mod layer;
mod service;

pub use future::PipelineFuture;
pub use layer::PipelineLayer;
pub use service::Pipeline;
