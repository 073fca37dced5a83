//! The registries under test, each a row of what `tests/registry.rs`, `tests/registry_chaos.rs` and
//! `tests/registry_propagation.rs` ask of all of them.
//!
//! How to add one:
//!
//! 1. `scripts/servers` gets its server, `scripts/test` starts it.
//! 2. `rows/NAME.rs` implements [`Row`] in some forty lines: how an instance is written, removed and listed past the
//!    library, as an operator or another client would, and how soon a change must be known. A row with a server keeps a
//!    [`Line`] to it, which brings all faults of a network; one that is asked by datagrams has its own.
//! 3. Its name is one more word in `registry.rs`, in `registry_chaos.rs` and in `registry_propagation.rs`.
//!
//! What is particular to a registry, such as its words for a refusal, stays in `tests/real_NAME.rs`; what its wire may
//! look like in `tests/wire_NAME.rs`.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.
#![allow(async_fn_in_trait)] // Nobody needs to know whether they can be sent to another thread.

pub mod consul;
mod datagrams;
pub mod dns;
pub mod dns_over_tcp;
pub mod etcd;
pub mod eureka;
pub mod file;
pub mod kubernetes;
mod line;
pub mod memory;
pub mod zookeeper;

use std::collections::BTreeMap;
use std::time::Duration;

use buttress::discovery::{Instance, Registry, RegistryError, Status};

pub use line::{Fault, Line};

/// A registry under test, and the ways to it that are not the library's.
pub trait Row: Sized + 'static {
    /// How the library sees it.
    type Registry: Registry + Clone;

    /// As it is called, also by `scripts/servers`.
    const NAME: &str;

    /// How soon a reader knows of a change. Where it polls: the poll, a tenth of it, and what the server takes to
    /// prepare its answer.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// How long it takes a reader to notice that it hears nothing, where no connection breaks off and none is refused.
    const SILENCE: Duration = Duration::ZERO;

    /// For how long one that is gone is named still, since it may only be moved.
    const LINGERS: Duration = Duration::ZERO;

    /// What becomes of an instance that is no longer renewed.
    const LAPSED: Lapsed = Lapsed::Gone;

    /// Whether instances can register themselves through the library.
    const REGISTERS: bool = true;

    /// Whether its server keeps on disk what it knows.
    const KEEPS: bool = false;

    /// The row, or nothing where there is no server for it; then says so.
    async fn start() -> Option<Self>;

    /// A client, over a network to which [`fault`](Self::fault) happens.
    fn registry(&self) -> Self::Registry;

    /// A client without the right to read, if there is such a thing.
    async fn denied() -> Option<Self::Registry> {
        None
    }

    /// Lets `fault` happen until the next one; [`Fault::None`] mends. False if it cannot happen here.
    async fn fault(&self, fault: Fault) -> bool;

    /// Registers `instance`, or changes it.
    async fn write(&self, service: &str, instance: &Instance);

    /// Takes an instance out.
    async fn remove(&self, service: &str, id: &str);

    /// The instances by id, with their weights, as the registry itself has them.
    async fn list(&self, service: &str) -> BTreeMap<String, u32>;

    /// Loses every instance of `service`, as a registry does that has no memory of it any more.
    async fn forget(&self, service: &str) {
        for id in self.list(service).await.keys() {
            self.remove(service, id).await;
        }
    }

    /// `instance` as far as the wire can say it: without what it cannot, and with the id that it gives.
    fn told(instance: Instance) -> Instance {
        instance
    }

    /// As what an instance is seen whose heartbeat says `status`.
    fn seen(status: Status) -> Status {
        status
    }
}

/// What becomes of an instance that is no longer renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapsed {
    /// It is not named any more.
    Gone,
    /// It is named as down.
    Down,
    /// Nothing: there are no leases.
    Stays,
}

/// Asks a server that answers in JSON, past the library.
async fn ask(request: reqwest::RequestBuilder) -> serde_json::Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

/// What a URL or a credential that the library did not take would be a mistake of ours.
fn ours<T>(made: Result<T, RegistryError>) -> T {
    made.unwrap_or_else(|error| panic!("{error}"))
}
