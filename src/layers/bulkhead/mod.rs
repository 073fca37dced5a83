//! A limit on how many calls are under way at once. See the [guide](crate::docs::layers::bulkhead).
//!
//! A [`Bulkhead`] has a number of slots. A call that finds none free is refused at once, or, with
//! [`queue`](Bulkhead::queue), waits in a line whose length and time are bounded each for itself, first come, first
//! served unless told [otherwise](Order). The slot comes back when the call ends, is dropped or panics. The limit can
//! change while calls flow.
//!
//! Refusals are made in `call`: readiness reserves nothing, so an idle clone holds nothing back. A call that waits
//! does not hold the inner service's readiness meanwhile: that is asked for once the slot is there.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::layers::bulkhead::Bulkhead;
//! use buttress::{BoxError, Rejected};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! let bulkhead = Bulkhead::new("orders", 1);
//! let mut service = ServiceBuilder::new()
//!     .layer(bulkhead.layer())
//!     .service_fn(|_: ()| async {
//!         tokio::time::sleep(Duration::from_secs(1)).await;
//!         Ok::<_, BoxError>("done")
//!     });
//!
//! let first = service.ready().await.unwrap().call(());
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().is_full());
//!
//! bulkhead.resize(2);
//! let second = service.ready().await.unwrap().call(());
//! assert_eq!(bulkhead.in_flight(), 2);
//! assert_eq!(tokio::try_join!(first, second).unwrap(), ("done", "done"));
//! assert_eq!(bulkhead.in_flight(), 0);
//! # }
//! ```
//!
//! Without tower, [`Bulkhead::acquire`] gives a [`Permit`] that lasts as long as its owner wants it to:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::Rejected> {
//! use buttress::layers::bulkhead::Bulkhead;
//!
//! let bulkhead = Bulkhead::new("reports", 4);
//! let permit = bulkhead.acquire().await?;
//! assert_eq!(bulkhead.in_flight(), 1);
//! drop(permit);
//! # Ok(())
//! # }
//! ```
//!
//! [`Bulkheads`] has one bulkhead for each key: for each service, instance or tenant.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::Rejected> {
//! use buttress::layers::bulkhead::{Bulkheads, Settings};
//!
//! let tenants = Bulkheads::new("tenants", Settings::new(1), 1000);
//! let _slot = tenants.acquire("a").await?;
//! assert!(tenants.acquire("a").await.is_err());
//! assert!(tenants.acquire("b").await.is_ok());
//! # Ok(())
//! # }
//! ```

mod acquire;
mod by;
mod family;
mod future;
mod handle;
mod hold;
mod member;
mod partition;
mod service;
mod settings;

pub use acquire::Acquire;
pub use by::{By, Select};
pub use family::Bulkheads;
pub use future::BulkheadFuture;
pub use handle::Bulkhead;
pub use hold::{Hold, Release};
pub use partition::Partitions;
pub use service::{BulkheadLayer, BulkheadService};
pub use settings::Settings;

pub use crate::slots::{Order, Permit};
