use std::collections::BTreeMap;
use std::fmt;

/// One running copy of a service, as a registry describes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Instance {
    /// What the registry calls it; unique within the service.
    pub id: String,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Availability zone, rack or data centre.
    pub zone: Option<String>,
    /// Its share of the traffic relative to its peers. 0 means: only if nobody else is left. Default 1.
    pub weight: u32,
    /// Whether it may be called.
    pub status: Status,
    /// What else the registry says of it.
    pub metadata: BTreeMap<String, String>,
}

/// Whether an instance may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It takes calls.
    #[default]
    Up,
    /// It is registered but not yet ready.
    Starting,
    /// Its operator took it out, or it is shutting down.
    OutOfService,
    /// Its health check fails.
    Down,
}

/// What makes an instance the same one after an update: its state in a balancer is kept as long as this is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceKey {
    id: String,
    host: String,
    port: u16,
    secure: bool,
}

impl Instance {
    /// An instance that is up, with weight 1, without TLS.
    pub fn new(id: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        Self {
            id: id.into(),
            host: host.into(),
            port,
            secure: false,
            zone: None,
            weight: 1,
            status: Status::Up,
            metadata: BTreeMap::new(),
        }
    }

    /// Says whether it speaks TLS.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Says which zone it is in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets its weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets its status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Adds an entry to the metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// What makes it the same instance after an update.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            id: self.id.clone(),
            host: self.host.clone(),
            port: self.port,
            secure: self.secure,
        }
    }

    /// `host:port`, with brackets around an IPv6 address, as the authority of a URL has it.
    pub fn authority(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_gets_brackets() {
        assert_eq!(Instance::new("a", "::1", 80).authority(), "[::1]:80");
        assert_eq!(
            Instance::new("a", "10.0.0.1", 80).authority(),
            "10.0.0.1:80"
        );
    }

    #[test]
    fn weight_and_metadata_do_not_make_another_instance() {
        let a = Instance::new("a", "h", 80);
        let b = a.clone().weight(9).metadata("k", "v").zone("z");
        assert_eq!(a.key(), b.key());
        assert_ne!(a.key(), a.clone().secure(true).key());
    }
}
