//! Call your peers by name and survive what the network, the peers and the registry do to it: [tower] layers and
//! service discovery.
//!
//! ```text
//!  registries ──Update──▶ discovery ──Snapshot──┐
//!  (one module each)      (cache, guard)        ▼
//!  caller ─▶ client ─▶ timeout · bulkhead ─▶ balance ─▶ timeout of an attempt ─▶ transport
//!            (policy   retry · circuit       pick by                             (reqwest)
//!             by name)  breaker              load ◀──── outcome ◀──── classify ◀─────┘
//! ```
//!
//! [tower]: https://docs.rs/tower
//!
//! # A client that calls services by name
//!
//! With the feature `reqwest`; the whole stack, each service with its own state.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! use std::time::Duration;
//!
//! use buttress::client::Policy;
//! use buttress::registries::memory::Memory;
//! use buttress::transport::reqwest::Client;
//! use buttress::{Rejected, Resolver};
//!
//! let client = Client::new(reqwest::Client::new(), Resolver::new(Memory::new()))
//!     .policy("orders", Policy::new().timeout(Duration::from_secs(2)));
//!
//! // Nobody registered yet, and the error says so.
//! let error = client.get("http://orders/7").send().await.unwrap_err();
//! let rejected = Rejected::find(&error).expect("a refusal");
//! assert_eq!(rejected.to_string(), "resolver `orders`: no instance is known");
//! # Ok(())
//! # }
//! ```
//!
//! # A layer around any service
//!
//! Each layer works alone. What is shared or steered is a handle, and `layer()` makes layers that share it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! use std::time::Duration;
//!
//! use buttress::algo::breaker::{Settings, State};
//! use buttress::layers::circuit_breaker::CircuitBreaker;
//! use buttress::layers::timeout::TimeoutLayer;
//! use buttress::BoxError;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let breaker = CircuitBreaker::new("prices", Settings::default());
//! let prices = ServiceBuilder::new()
//!     .layer(breaker.layer())
//!     .layer(TimeoutLayer::new(Duration::from_millis(500)))
//!     .service(service_fn(|km: u64| async move { Ok::<_, BoxError>(350 + 120 * km) }));
//!
//! assert_eq!(prices.oneshot(10).await?, 1550);
//! assert_eq!(breaker.state(), State::Closed);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None is on by default. A feature stands where a dependency enters.
//!
//! | feature | what it brings |
//! |---|---|
//! | `http` | `transport::http`: what HTTP says about failures and trying again, for [`hyper`](docs::transports) and others; [deadlines](docs::layers::timeout#across-services) that travel, bodies that hold a slot |
//! | `hyper` | `transport::http` knows which errors of `hyper-util`'s client say that [nothing was sent](docs::transports#reqwest-and-hyper-clients) |
//! | `reqwest` | `transport::reqwest`: [the client](docs::client) around a `reqwest::Client` |
//! | `tonic` | `transport::tonic`: refusals as `Status`, and what gRPC says about [failures and trying again](docs::transports) |
//! | `axum` | `transport::axum`: refusals as [answers of a server](docs::transports) |
//! | `consul` | `registries::consul`: [Consul](docs::registries::consul) |
//! | `eureka` | `registries::eureka`: [Eureka](docs::registries::eureka) |
//! | `etcd` | `registries::etcd`: [etcd](docs::registries::etcd) |
//! | `zookeeper` | `registries::zookeeper`: [ZooKeeper](docs::registries::zookeeper) |
//! | `kubernetes` | `registries::kubernetes`: [Kubernetes](docs::registries::kubernetes) |
//! | `dns` | `registries::dns`: [DNS](docs::registries::dns), addresses and SRV records; Rust 1.88 |
//! | `redis` | `transport::redis`: [a rate limit that processes share](docs::layers::rate_limit#a-limit-that-processes-share); Rust 1.88 |
//! | `file` | `registries::file`: [a TOML or JSON file](docs::registries::file) that is watched; Rust 1.89 |
//! | `cli` | the command `buttress`: [what a client would see](docs::cli), and why; Rust 1.89 |
//! | `metrics` | `observe::MetricsObserver`: events as [figures](docs::observe) |
//! | `tracing` | `observe::TracingObserver`: events as `tracing` [events](docs::observe) |
//!
//! # Modules, as a call meets them
//!
//! | module | what it does |
//! |---|---|
//! | [`transport`] | where foreign crates meet this one |
//! | [`client`] | the whole stack by service name, for any transport |
//! | [`layers`] | one each: timeout, bulkhead, retry, circuit breaker, and more |
//! | [`pipeline`] | the usual five of them as one, for less |
//! | [`balance`] | sends each call to one of the instances |
//! | [`discovery`] | the instances: cache, guard, freshness, registration |
//! | [`registries`] | Consul, Eureka, etcd, ZooKeeper, Kubernetes, DNS, a file, memory |
//! | [`error`](mod@error), [`classify`], [`deadline`], [`budget`], [`observe`] | what they share |
//! | [`clock`], [`rng`] | the only readers of time and chance |
//! | [`algo`] | the decisions: windows, state machines, picks. Pure functions of their arguments |
//!
//! The guides are in [`docs`]: [the client](docs::client), [in which order](docs::order) layers stack,
//! [five of them as one](docs::pipeline),
//! [around `reqwest`, `hyper`, `tonic` and `axum`](docs::transports),
//! [discovery](docs::discovery), [balancing](docs::balance), [the command](docs::cli), [what is told](docs::observe),
//! [what a call costs](docs::performance), every [default](docs::defaults) with its reason, and [why](docs::design) it is so.

mod admitted;
pub mod algo;
pub mod balance;
pub mod budget;
pub mod classify;
pub mod client;
pub mod clock;
pub mod deadline;
pub mod discovery;
pub mod docs;
pub mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod keyed;
pub mod layers;
#[cfg(test)]
mod model;
pub mod observe;
pub mod pipeline;
pub mod registries;
pub mod rng;
mod seldom;
mod slab;
mod slots;
pub mod transport;

pub use classify::{Classify, Outcome};
pub use deadline::Deadline;
pub use discovery::{Instance, Registry, Resolver};
pub use error::{BoxError, Error, ErrorLayer, Rejected};
