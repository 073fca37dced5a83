//! A request's [`Deadline`](crate::Deadline) on its way from service to service. See the
//! [guide](crate::docs::layers::timeout#across-services).
//!
//! The caller says how long it still waits, since clocks differ: in `grpc-timeout` as gRPC has it, or in a header of
//! milliseconds, `x-request-timeout-ms` if not told otherwise. [`ReceiveDeadlineLayer`] puts that in force around a
//! server; [`SendDeadlineLayer`] says what is left of it to the next one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! use std::time::Duration;
//!
//! use buttress::transport::http::deadline::{ReceiveDeadlineLayer, SendDeadlineLayer};
//! use buttress::{BoxError, clock};
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! // The next service: it hears how long it has.
//! let stock = ServiceBuilder::new()
//!     .layer(SendDeadlineLayer::new().margin(Duration::from_millis(10)))
//!     .service(service_fn(|request: Request<()>| async move {
//!         Ok::<_, BoxError>(request.headers()["x-request-timeout-ms"].clone())
//!     }));
//! // This one works for 100 ms before it asks that.
//! let orders = ServiceBuilder::new()
//!     .layer(ReceiveDeadlineLayer::new().most(Duration::from_secs(10)))
//!     .service(service_fn(|_: Request<()>| async {
//!         clock::sleep(Duration::from_millis(100)).await;
//!         stock.clone().oneshot(Request::new(())).await
//!     }));
//!
//! let request = Request::builder().header("x-request-timeout-ms", "500").body(())?;
//! assert_eq!(orders.oneshot(request).await?, "390");
//! # Ok(())
//! # }
//! ```

mod future;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod header;
mod receive;
mod send;

pub use future::SendDeadlineFuture;
pub use receive::{ReceiveDeadline, ReceiveDeadlineLayer};
pub use send::{SendDeadline, SendDeadlineLayer};
