//! Stops calling a peer that fails, and finds out when it works again. See the [guide](crate::docs::layers::circuit_breaker).
//!
//! Calls flow and are counted while the breaker is closed. When too many of them fail or are slow it opens and refuses
//! for a while; then it is half-open, and a set number of probes decides whether it closes or opens for longer.
//! [`Settings`](crate::algo::breaker::Settings) says when.
//!
//! A [`CircuitBreaker`] is the handle: named, cheap to clone, read and steered while calls flow. Each
//! [`layer`](CircuitBreaker::layer) of one handle shares its state, so that one breaker guards one peer however many
//! services call it. A refused call ends with [`Rejected`](crate::Rejected), which says who refused and when to come
//! back; an open breaker refuses without waiting for the service inside to be ready.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use buttress::algo::breaker::{Settings, State};
//! use buttress::layers::circuit_breaker::CircuitBreaker;
//! use buttress::{BoxError, Rejected};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! let breaker = CircuitBreaker::new("orders", Settings::default().consecutive_failures(3));
//! let mut service = ServiceBuilder::new()
//!     .layer(breaker.layer())
//!     .service_fn(|_: ()| async { Err::<(), BoxError>("connection reset".into()) });
//!
//! for _ in 0..3 {
//!     let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//!     assert_eq!(error.to_string(), "connection reset");
//! }
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().is_open());
//! assert_eq!(breaker.state(), State::Open);
//! # }
//! ```
//!
//! [`CircuitBreakers`] has one breaker for each key: for each host, tenant or route.
//!
//! ```
//! use buttress::algo::breaker::{Settings, State};
//! use buttress::layers::circuit_breaker::CircuitBreakers;
//! use buttress::Outcome;
//!
//! let hosts = CircuitBreakers::new("hosts", Settings::default().consecutive_failures(1), 1000);
//! hosts.try_acquire("a").unwrap().record(Outcome::Failure);
//! assert_eq!(hosts.find(&"a").unwrap().state(), State::Open);
//! assert!(hosts.try_acquire("b").is_ok());
//! ```

mod family;
mod family_layer;
mod family_service;
mod flow;
mod future;
mod handle;
mod layer;
mod member;
mod permit;
mod service;
mod shared;
mod timer;
mod unready;

pub use family::CircuitBreakers;
pub use family_layer::CircuitBreakersLayer;
pub use family_service::CircuitBreakersService;
pub use future::CircuitBreakerFuture;
pub use handle::CircuitBreaker;
pub use layer::CircuitBreakerLayer;
pub use permit::Permit;
pub use service::CircuitBreakerService;

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};

    pub(super) use crate::algo::lanes::{lanes, mine};
}

// The same flow, on loom's primitives.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod model;
