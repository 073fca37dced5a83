//! What Consul is told of an instance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::health::{SECURE, TAGS, Weights, ZONE};
use crate::discovery::{Instance, Status};

/// The check that is renewed by each heartbeat.
pub(super) fn lease(id: &str) -> String {
    format!("lease:{id}")
}

/// The check that tells the instance's own status. It is apart from the lease since Consul takes out what is critical
/// for long, and an instance that is down but sends heartbeats is to stay.
pub(super) fn state(id: &str) -> String {
    format!("{STATE}{id}")
}

/// What is registered.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    meta: BTreeMap<&'a str, &'a str>,
    weights: Weights,
    checks: [Ttl; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ttl {
    #[serde(rename = "CheckID")]
    id: String,
    name: &'static str,
    #[serde(rename = "TTL")]
    ttl: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
}

impl<'a> Service<'a> {
    pub(super) fn new(name: &'a str, instance: &'a Instance, ttl: Duration) -> Self {
        let mut meta: BTreeMap<_, _> = (instance.metadata.iter())
            .map(|(key, value)| (&**key, &**value))
            .collect();
        let tags = meta.remove(TAGS).unwrap_or_default();
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        if let Some(zone) = &instance.zone {
            meta.insert(ZONE, zone);
        }
        if instance.secure {
            meta.insert(SECURE, "true");
        }
        let weight = instance.weight.clamp(1, HEAVIEST);
        let lease = Ttl {
            id: lease(&instance.id),
            name: "Heartbeat",
            ttl: milliseconds(ttl.max(Duration::from_millis(1))),
            status: CheckUpdate::new(Status::Up).status,
            deregister_critical_service_after: Some(milliseconds(ttl.max(LEAST_CRITICAL))),
        };
        let state = Ttl {
            id: state(&instance.id),
            name: "Status",
            ttl: FOR_EVER.into(),
            status: CheckUpdate::new(instance.status).status,
            deregister_critical_service_after: None,
        };
        Self {
            id: &instance.id,
            name,
            address: &instance.host,
            port: instance.port,
            tags: tags.collect(),
            meta,
            weights: Weights {
                passing: weight,
                warning: weight,
            },
            checks: [lease, state],
        }
    }
}

/// What a heartbeat says of a check.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckUpdate {
    status: &'static str,
    output: &'static str,
}

impl CheckUpdate {
    pub(super) fn new(status: Status) -> Self {
        Self {
            status: match status {
                Status::Up => "passing",
                _ => "critical",
            },
            output: told(status),
        }
    }
}

pub(super) fn told(status: Status) -> &'static str {
    match status {
        Status::Up => "up",
        Status::Starting => "starting",
        Status::OutOfService => "out of service",
        Status::Down => "down",
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// How the name of a check of the second kind begins.
pub(super) const STATE: &str = "state:";
const HEAVIEST: u32 = 65_535;
/// Consul takes no less.
const LEAST_CRITICAL: Duration = Duration::from_secs(60);
/// Ten years.
const FOR_EVER: &str = "87600h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_beyond_what_consul_takes_is_brought_within() {
        for (weight, sent) in [(0, 1), (7, 7), (1_000_000, 65_535)] {
            let instance = Instance::new("a", "h", 80).weight(weight);
            let service =
                serde_json::to_value(Service::new("s", &instance, Duration::ZERO)).unwrap();
            assert_eq!(service["Weights"]["Passing"], sent);
            assert_eq!(service["Checks"][0]["TTL"], "1ms");
            assert_eq!(
                service["Checks"][0]["DeregisterCriticalServiceAfter"],
                "60000ms"
            );
        }
    }
}
