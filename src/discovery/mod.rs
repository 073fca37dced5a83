//! Where the instances of a service are.

mod instance;
mod registry;
mod snapshot;
mod watch;

pub use instance::{Instance, InstanceKey, Status};
pub use registry::{BoxFuture, ErrorKind, Registry, RegistryError, Renewal, Update, Updates};
pub use snapshot::Snapshot;
pub use watch::Watch;
