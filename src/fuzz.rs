//! What reads bytes from elsewhere, for the targets of `fuzz/`. It is there with `--cfg fuzzing` alone and is no part of
//! the interface.
//!
//! Each takes what a server, a file or a peer may say, and panics where something does not hold that should.

/// Answers of Consul.
#[cfg(feature = "consul")]
pub fn consul(bytes: &[u8]) {
    crate::registries::consul::fuzz::answer(bytes);
}

/// A full answer of Eureka and the changes that follow, with bytes of 255 between them.
#[cfg(feature = "eureka")]
pub fn eureka(bytes: &[u8]) {
    crate::registries::eureka::fuzz::answers(bytes);
}

/// What etcd has of a service in the first line, and what its watch says in the others.
#[cfg(feature = "etcd")]
pub fn etcd(bytes: &[u8]) {
    crate::registries::etcd::follow::fuzz::lines(bytes);
}

/// The value of a key in etcd.
#[cfg(feature = "etcd")]
pub fn etcd_value(bytes: &[u8]) {
    crate::registries::etcd::fuzz::value(bytes);
}

/// A file of instances, in JSON.
#[cfg(feature = "file")]
pub fn file_json(bytes: &[u8]) {
    crate::registries::file::fuzz::json(bytes);
}

/// A file of instances, in TOML.
#[cfg(feature = "file")]
pub fn file_toml(bytes: &[u8]) {
    crate::registries::file::fuzz::toml(bytes);
}

/// Answers of name servers, each behind its length in two bytes.
#[cfg(feature = "dns")]
pub fn dns(bytes: &[u8]) {
    crate::registries::dns::fuzz::answers(bytes);
}

/// How the name of a service is made a name of DNS.
#[cfg(feature = "dns")]
pub fn dns_name(bytes: &[u8]) {
    crate::registries::dns::fuzz::names(bytes);
}

/// What Kubernetes has of a service in the first line, and what its watch says in the others.
#[cfg(feature = "kubernetes")]
pub fn kubernetes(bytes: &[u8]) {
    crate::registries::kubernetes::fuzz::lines(bytes);
    crate::registries::kubernetes::fuzz::name(bytes);
}

/// The data of a node in ZooKeeper.
#[cfg(feature = "zookeeper")]
pub fn zookeeper(bytes: &[u8]) {
    crate::registries::zookeeper::fuzz::node(bytes);
}

/// Where ZooKeeper is, and what its nodes are called.
#[cfg(feature = "zookeeper")]
pub fn zookeeper_name(bytes: &[u8]) {
    crate::registries::zookeeper::fuzz::names(bytes);
}

/// What a resolver knows, on disk.
pub fn snapshot(bytes: &[u8]) {
    crate::discovery::fuzz::snapshot(bytes);
}

/// The headers that say how long the caller waits.
#[cfg(feature = "http")]
pub fn deadline(bytes: &[u8]) {
    crate::transport::http::deadline::fuzz::headers(bytes);
}
