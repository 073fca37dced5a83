//! Call your peers by name and survive what the network, the peers and the registry do to it.

pub mod algo;
pub mod balance;
pub mod classify;
pub mod client;
pub mod clock;
pub mod deadline;
pub mod discovery;
pub mod error;
pub mod layers;
pub mod observe;
pub mod registries;
pub mod rng;
pub mod transport;

pub use classify::{Classify, Outcome};
pub use deadline::Deadline;
pub use discovery::{Instance, Registry, Resolver};
pub use error::{BoxError, Error, ErrorLayer, Rejected};
