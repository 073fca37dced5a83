//! Faults on purpose: late answers, errors, hangs and answers cut short. See the [guide](crate::docs::layers::chaos).
//!
//! A [`Chaos`] is off until it is given [`Faults`](crate::algo::faults::Faults), and these can change while calls flow.
//! A call meets them by chance, which a seed repeats. It stands where the peer would fail, inside all other layers.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::BoxError;
//! use buttress::algo::faults::Faults;
//! use buttress::layers::chaos::{Chaos, Injected};
//! use buttress::layers::timeout::TimeoutLayer;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! let chaos = Chaos::new("prices", 42);
//! let mut service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_secs(1)))
//!     .layer(chaos.layer())
//!     .service_fn(|_: ()| async { Ok::<_, BoxError>("fine") });
//! assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), "fine");
//!
//! chaos.set(Faults::new().errors(1.0));
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! assert!(error.is::<Injected>());
//!
//! chaos.set(Faults::new().hangs(1.0));
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! assert_eq!(error.to_string(), "timeout gave up after 1s");
//!
//! chaos.stop();
//! assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), "fine");
//! # }
//! ```

mod future;
mod handle;
mod hooks;
mod layer;

pub use future::ChaosFuture;
pub use handle::Chaos;
pub use hooks::{Always, Choose, Cut, Fail, Injected, Whole, WithAnswer, WithError};
pub use layer::{ChaosLayer, ChaosService};
