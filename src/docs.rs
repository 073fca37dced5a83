//! The guides: how to use each part, its defaults and their reasons, what it does at the edges, what not to do.
//!
//! Begin with [`client`] for the whole stack, or with [`order`] and the guide of a layer for a stack of your own. They
//! are the files of `docs/` in the repository, and their examples are compiled and run with the tests.
//!
//! They need tokio with its feature `full`, and those with layers tower with `util`. `start_paused` is for tests: it needs
//! tokio's `test-util`, and time stands still but for what is waited for.

#[doc = include_str!("../docs/client.md")]
pub mod client {}

#[doc = include_str!("../docs/order.md")]
pub mod order {}

#[doc = include_str!("../docs/pipeline.md")]
pub mod pipeline {}

#[doc = include_str!("../docs/transports.md")]
pub mod transports {}

#[doc = include_str!("../docs/discovery.md")]
pub mod discovery {}

#[doc = include_str!("../docs/balance.md")]
pub mod balance {}

#[doc = include_str!("../docs/cli.md")]
pub mod cli {}

#[doc = include_str!("../docs/observe.md")]
pub mod observe {}

#[doc = include_str!("../docs/defaults.md")]
pub mod defaults {}

#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

#[doc = include_str!("../docs/design.md")]
pub mod design {}

/// One guide a layer.
pub mod layers {
    #[doc = include_str!("../docs/layers/bulkhead.md")]
    pub mod bulkhead {}

    #[doc = include_str!("../docs/layers/chaos.md")]
    pub mod chaos {}

    #[doc = include_str!("../docs/layers/circuit_breaker.md")]
    pub mod circuit_breaker {}

    #[doc = include_str!("../docs/layers/coalesce.md")]
    pub mod coalesce {}

    #[doc = include_str!("../docs/layers/concurrency.md")]
    pub mod concurrency {}

    #[doc = include_str!("../docs/layers/fallback.md")]
    pub mod fallback {}

    #[doc = include_str!("../docs/layers/hedge.md")]
    pub mod hedge {}

    #[doc = include_str!("../docs/layers/rate_limit.md")]
    pub mod rate_limit {}

    #[doc = include_str!("../docs/layers/retry.md")]
    pub mod retry {}

    #[doc = include_str!("../docs/layers/throttle.md")]
    pub mod throttle {}

    #[doc = include_str!("../docs/layers/timeout.md")]
    pub mod timeout {}
}

/// One guide a registry.
pub mod registries {
    #[doc = include_str!("../docs/registries/consul.md")]
    pub mod consul {}

    #[doc = include_str!("../docs/registries/dns.md")]
    pub mod dns {}

    #[doc = include_str!("../docs/registries/etcd.md")]
    pub mod etcd {}

    #[doc = include_str!("../docs/registries/eureka.md")]
    pub mod eureka {}

    #[doc = include_str!("../docs/registries/file.md")]
    pub mod file {}

    #[doc = include_str!("../docs/registries/kubernetes.md")]
    pub mod kubernetes {}

    #[doc = include_str!("../docs/registries/memory.md")]
    pub mod memory {}

    #[doc = include_str!("../docs/registries/zookeeper.md")]
    pub mod zookeeper {}
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
