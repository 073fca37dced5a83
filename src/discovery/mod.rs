//! Where the instances of a service are. See the [guide](crate::docs::discovery).
//!
//! A [`Resolver`] asks one [`Registry`], or a chain of them, and keeps what they said. Its [`Watch`] of a service gives
//! immutable [`Snapshot`]s, without a lock and whatever the registry does: an outage changes nothing, and a registry
//! that suddenly forgets many instances is doubted for up to a minute. A [`SnapshotFile`] has what is known outlive the
//! process. A [`Registration`] keeps an instance of one's own in a registry.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::discovery::{Freshness, Instance, Registration, Resolver};
//! use buttress::registries::memory::Memory;
//!
//! let registry = Memory::new();
//! let orders = Instance::new("orders-1", "10.0.0.7", 8080);
//! let registered = Registration::new(registry.clone(), "orders", orders).start();
//!
//! let watch = Resolver::new(registry.clone()).watch("orders");
//! let first = watch.changed(0).await;
//! assert_eq!(first.instances()[0].authority(), "10.0.0.7:8080");
//!
//! registry.set_down(true);
//! tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
//! assert!(matches!(watch.freshness(), Freshness::Stale { .. }));
//! assert_eq!(watch.snapshot().instances().len(), 1);
//! # registered.abandon();
//! # Ok(())
//! # }
//! ```

mod backoff;
mod changes;
mod discover;
mod disk;
mod feed;
mod guard;
mod holders;
mod instance;
mod registration;
mod registry;
mod resolver;
mod service;
mod snapshot;
mod source;
mod unresolved;
mod watch;

pub use changes::{Change, Changes};
pub use discover::Discover;
pub use disk::SnapshotFile;
#[cfg(fuzzing)]
pub(crate) use disk::fuzz;
#[doc(hidden)]
pub use disk::{Inspected, Kept};
pub use instance::{Instance, InstanceKey, Status};
pub use registration::{Registered, Registration};
pub use registry::{BoxFuture, ErrorKind, Registry, RegistryError, Renewal, Update, Updates};
pub use resolver::Resolver;
pub use snapshot::Snapshot;
pub use unresolved::ResolveError;
pub use watch::{Freshness, Watch};
