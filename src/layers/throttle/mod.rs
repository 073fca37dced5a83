//! Holds back a share of the calls that the peer would refuse anyway. See the [guide](crate::docs::layers::throttle).
//!
//! Where the peer refuses more than half of what it is sent, refusing costs it more than the work it still does. A
//! [`Throttle`] counts what is asked and what is accepted over the last two minutes, and refuses the rest with a
//! probability that keeps what is sent at about twice what is accepted; see [`algo::throttle`](crate::algo::throttle).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use buttress::layers::throttle::Throttle;
//! use buttress::BoxError;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let throttle = Throttle::new("orders", Default::default());
//! let service = ServiceBuilder::new()
//!     .layer(throttle.layer())
//!     .service_fn(|_: ()| async { Err::<(), BoxError>("too much to do".into()) });
//!
//! for _ in 0..100 {
//!     service.clone().oneshot(()).await.unwrap_err();
//! }
//! assert_eq!(throttle.rejection_rate(), 0.9);
//! # }
//! ```

mod future;
mod handle;
mod service;

pub use future::ThrottleFuture;
pub use handle::Throttle;
pub use service::{ThrottleLayer, ThrottleService};
