//! A limit on how long a call may take. See the [guide](crate::docs::layers::timeout).
//!
//! The limit is the shorter of the layer's own, or the one that the request says, and of the request's
//! [`Deadline`](crate::Deadline), and it becomes the deadline of everything inside. Past it the inner future is dropped
//! and the call ends with [`Rejected`](crate::Rejected): `TimedOut` where the limit was the shorter, `DeadlineExceeded`
//! where the deadline was. A panic inside stays a panic.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::layers::timeout::TimeoutLayer;
//! use buttress::{BoxError, Rejected};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_millis(300)))
//!     .service_fn(|_: ()| async {
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!         Ok::<_, BoxError>("late")
//!     });
//! let error = service.oneshot(()).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().is_timeout());
//! # }
//! ```

mod bound;
mod future;
mod layer;
mod limits;
mod service;

pub use future::TimeoutFuture;
pub use layer::TimeoutLayer;
pub use limits::{By, Fixed, Limits};
pub use service::Timeout;
