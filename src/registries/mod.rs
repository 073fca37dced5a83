//! One file a registry.

#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "eureka")]
pub mod eureka;
#[cfg(feature = "file")]
pub mod file;
#[cfg(any(feature = "consul", feature = "eureka"))]
mod http;
pub mod memory;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;
