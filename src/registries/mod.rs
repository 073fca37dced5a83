//! One module a registry; `http`, `lines` and `servers` are what several of them share.

#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "eureka")]
pub mod eureka;
#[cfg(feature = "file")]
pub mod file;
#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "kubernetes"
))]
mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
mod lines;
pub mod memory;
#[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
mod servers;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;
