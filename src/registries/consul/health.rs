//! What Consul says of a service.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::registration::{STATE, told};
use crate::discovery::{Instance, Status};

/// The index to wait beyond, after one that was asked with `asked` was answered with `heard`.
///
/// An index that goes backwards means that the server's state is a new one: ask at once. One of 0 would never block.
pub(super) fn next_index(asked: u64, heard: u64) -> u64 {
    if heard < asked { 0 } else { heard.max(1) }
}

/// The instances of an answer, in an order that does not depend on the server.
///
/// `address` is the name of the one that is wanted, if an instance has it.
pub(super) fn instances(mut entries: Vec<Entry>, address: Option<&str>) -> Vec<Instance> {
    // One that had to change its agent is known to both for a while: what the healthier copy says counts.
    entries.sort_by(|a, b| (a.place(), a.worst()).cmp(&(b.place(), b.worst())));
    entries.dedup_by(|a, b| !a.service.address.is_empty() && a.place() == b.place());
    let mut times: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        *times.entry(entry.service.id.clone()).or_default() += 1;
    }
    let mut instances: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| {
            let shared = times.get(&entry.service.id) != Some(&1);
            entry.instance(shared, address)
        })
        .collect();
    instances.sort_by(|a, b| (&a.id, &a.host, a.port).cmp(&(&b.id, &b.host, b.port)));
    instances
}

/// An entry of `/v1/health/service/NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Node,
    service: HealthService,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
    #[serde(default)]
    tagged_addresses: Option<HashMap<String, String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthService {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    tagged_addresses: Option<HashMap<String, Tagged>>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Weights,
    #[serde(default)]
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    address: String,
    #[serde(default)]
    port: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    status: String,
    #[serde(default)]
    output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    #[serde(default)]
    zone: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Weights {
    pub(super) passing: u32,
    pub(super) warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

impl Entry {
    /// What makes two entries one instance, if the address is its own.
    fn place(&self) -> (&str, &str, i64) {
        let HealthService {
            id, address, port, ..
        } = &self.service;
        (id, address, *port)
    }

    fn worst(&self) -> Health {
        let checks = self.checks.iter().flatten();
        checks.map(Check::health).max().unwrap_or(Health::Passing)
    }

    /// Where to call it: at its own address or else its node's, and each at the one that is wanted, if there is one.
    fn address(&self, wanted: Option<&str>) -> (&str, i64) {
        let Self { node, service, .. } = self;
        let tagged = service.tagged_addresses.as_ref();
        if let Some(tagged) = wanted.and_then(|name| tagged?.get(name)) {
            let own = tagged.port == 0;
            return (
                &tagged.address,
                if own { service.port } else { tagged.port },
            );
        }
        let tagged = node.tagged_addresses.as_ref();
        let address = match &*service.address {
            "" => wanted
                .and_then(|name| tagged?.get(name))
                .unwrap_or(&node.address),
            address => address,
        };
        (address, service.port)
    }

    /// The instance, if it has a port at which it can be called. `shared`: others have its id, on other nodes.
    fn instance(self, shared: bool, wanted: Option<&str>) -> Option<Instance> {
        let (host, port) = self.address(wanted);
        let (host, port) = (host.to_owned(), u16::try_from(port).ok());
        let port = port.filter(|&port| port != 0)?;
        let worst = self.worst();
        let Self { node, service, .. } = self;
        // An id is unique on its node only, and one that was not given is the service's name.
        let id = match shared || service.id == service.service {
            true => format!("{}@{}", service.id, node.node),
            false => service.id,
        };

        let mut instance = Instance::new(id, host.trim_matches(['[', ']']), port);
        instance.weight = match worst {
            Health::Warning => service.weights.warning,
            _ => service.weights.passing,
        };
        instance.status = match worst {
            Health::Passing | Health::Warning => Status::Up,
            Health::Starting => Status::Starting,
            Health::OutOfService | Health::Maintenance => Status::OutOfService,
            Health::Down => Status::Down,
        };
        instance.metadata = service.meta.unwrap_or_default();
        instance.secure = instance.metadata.remove(SECURE).as_deref() == Some("true");
        let zones = [
            instance.metadata.remove(ZONE),
            service.locality.map(|locality| locality.zone),
            node.meta.and_then(|mut meta| meta.remove(ZONE)),
            node.locality.map(|locality| locality.zone),
        ];
        instance.zone = zones.into_iter().flatten().find(|zone| !zone.is_empty());
        let tags = service.tags.unwrap_or_default();
        if !tags.is_empty() {
            let tags = tags.join(",");
            instance.metadata.entry(TAGS.into()).or_insert(tags);
        }
        Some(instance)
    }
}

/// How a check stands; the worst of an instance and its node counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Passing,
    Warning,
    Starting,
    OutOfService,
    Down,
    /// Above all others: what an operator did says more than the failure that may have led to it.
    Maintenance,
}

impl Check {
    fn health(&self) -> Health {
        match &*self.status {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            _ if self.id.starts_with("_service_maintenance") => Health::Maintenance,
            _ if self.id == "_node_maintenance" => Health::Maintenance,
            _ if !self.id.starts_with(STATE) => Health::Down,
            // The output is empty until the first heartbeat.
            _ if self.output.is_empty() || self.output == told(Status::Starting) => {
                Health::Starting
            }
            _ if self.output == told(Status::OutOfService) => Health::OutOfService,
            _ => Health::Down,
        }
    }
}

/// Keys of the metadata, as Spring Cloud has them.
pub(super) const ZONE: &str = "zone";
pub(super) const SECURE: &str = "secure";
/// The tags, separated by commas.
pub(super) const TAGS: &str = "tags";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(entry: serde_json::Value) -> Instance {
        let entries: Vec<Entry> = serde_json::from_value(json!([entry])).unwrap();
        instances(entries, None).remove(0)
    }

    fn with_checks(checks: serde_json::Value) -> Instance {
        one(json!({
            "Node": {"Node": "n", "Address": "10.0.0.1"},
            "Service": {"ID": "a", "Service": "s", "Port": 80, "Weights": {"Passing": 5, "Warning": 2}},
            "Checks": checks,
        }))
    }

    #[test]
    fn the_next_index_follows_the_rules() {
        for (asked, heard, next) in [
            (0, 7, 7),
            (7, 7, 7),
            (7, 9, 9),
            (9, 7, 0),
            (9, 0, 0),
            (0, 0, 1),
        ] {
            assert_eq!(
                next_index(asked, heard),
                next,
                "asked {asked}, heard {heard}"
            );
        }
    }

    #[test]
    fn the_worst_check_makes_the_status_and_the_weight() {
        for (checks, status, weight) in [
            (json!(null), Status::Up, 5),
            (json!([]), Status::Up, 5),
            (json!([{"Status": "passing"}]), Status::Up, 5),
            (
                json!([{"Status": "passing"}, {"Status": "warning"}]),
                Status::Up,
                2,
            ),
            (
                json!([{"Status": "critical"}, {"Status": "warning"}]),
                Status::Down,
                5,
            ),
            (json!([{"Status": "nonsense"}]), Status::Down, 5),
            (
                json!([{"CheckID": "x", "Status": "critical"},
                    {"CheckID": "_service_maintenance:a", "Status": "critical"}]),
                Status::OutOfService,
                5,
            ),
            (
                json!([{"CheckID": "_node_maintenance", "Status": "critical"}]),
                Status::OutOfService,
                5,
            ),
            (
                json!([{"CheckID": "state:a", "Status": "critical", "Output": "out of service"}]),
                Status::OutOfService,
                5,
            ),
            (
                json!([{"CheckID": "state:a", "Status": "critical", "Output": ""}]),
                Status::Starting,
                5,
            ),
            (
                json!([{"CheckID": "state:a", "Status": "critical", "Output": "starting"},
                    {"CheckID": "lease:a", "Status": "critical"}]),
                Status::Down,
                5,
            ),
        ] {
            let instance = with_checks(checks.clone());
            assert_eq!(
                (instance.status, instance.weight),
                (status, weight),
                "{checks}"
            );
        }
    }

    #[test]
    fn an_empty_service_address_means_the_nodes() {
        assert_eq!(with_checks(json!([])).host, "10.0.0.1");
    }

    #[test]
    fn an_address_that_is_wanted_goes_before_the_others() {
        let found = |wanted, address: &str, service, node| {
            let entries = json!([{
                "Node": {"Node": "n", "Address": "node", "TaggedAddresses": node},
                "Service": {"ID": "a", "Service": "s", "Port": 80, "Address": address, "TaggedAddresses": service},
            }]);
            let entries: Vec<Entry> = serde_json::from_value(entries).unwrap();
            instances(entries, wanted).remove(0).authority()
        };
        let node = json!({"lan": "node-lan", "wan": "node-wan"});
        let service = json!({"wan": {"Address": "wan", "Port": 81}, "lan": {"Address": "lan"}});
        let none = json!(null);
        for (wanted, address, service, node, expected) in [
            (None, "own", &service, &node, "own:80"),
            (None, "", &service, &node, "node:80"),
            (Some("wan"), "own", &service, &node, "wan:81"),
            (Some("lan"), "own", &service, &node, "lan:80"),
            (Some("wan"), "own", &none, &node, "own:80"),
            (Some("wan"), "", &none, &node, "node-wan:80"),
            (Some("virtual"), "", &service, &node, "node:80"),
            (Some("wan"), "", &none, &none, "node:80"),
        ] {
            assert_eq!(
                found(wanted, address, service, node),
                expected,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn an_instance_that_changed_its_agent_is_one_and_as_well_as_at_the_better() {
        let entry = |node: &str, address: &str, status: &str| {
            json!({
                "Node": {"Node": node, "Address": node},
                "Service": {"ID": "a", "Service": "s", "Port": 80, "Address": address},
                "Checks": [{"Status": status}],
            })
        };
        let found = |entries: &[serde_json::Value]| {
            let entries: Vec<Entry> = serde_json::from_value(json!(entries)).unwrap();
            let found = instances(entries, None).into_iter();
            found.map(|one| (one.id, one.status)).collect::<Vec<_>>()
        };
        let (left, now) = (entry("n1", "h", "critical"), entry("n2", "h", "passing"));
        let up = [("a".to_owned(), Status::Up)];
        assert_eq!(found(&[left.clone(), now.clone()]), up);
        assert_eq!(found(&[now, left.clone()]), up);
        // Of those without an address of their own, the node tells which is which.
        let others = [entry("n1", "", "critical"), entry("n2", "", "passing")];
        let apart = [
            ("a@n1".to_owned(), Status::Down),
            ("a@n2".to_owned(), Status::Up),
        ];
        assert_eq!(found(&others), apart);
    }

    #[test]
    fn an_id_that_is_not_the_instances_own_gets_the_nodes_name() {
        let entry = |node: &str, id: &str| {
            json!({
                "Node": {"Node": node, "Address": node},
                "Service": {"ID": id, "Service": "s", "Port": 80},
            })
        };
        let entries = json!([
            entry("n2", "s"),
            entry("n1", "s"),
            entry("n1", "b"),
            entry("n2", "c"),
            entry("n3", "c")
        ]);
        let entries: Vec<Entry> = serde_json::from_value(entries).unwrap();
        let ids: Vec<_> = instances(entries, None)
            .into_iter()
            .map(|instance| instance.id)
            .collect();
        assert_eq!(ids, ["b", "c@n2", "c@n3", "s@n1", "s@n2"]);
        assert_eq!(one(entry("n1", "s")).id, "s@n1");
    }

    #[test]
    fn what_cannot_be_called_is_left_out() {
        for port in [0, -1, 70_000] {
            let entries = json!([{
                "Node": {"Node": "n", "Address": "10.0.0.1"},
                "Service": {"ID": "a", "Service": "s", "Port": port},
            }]);
            assert!(instances(serde_json::from_value(entries).unwrap(), None).is_empty());
        }
    }

    #[test]
    fn the_zone_is_the_instances_own_or_its_nodes() {
        let entry = |meta, locality, node| {
            one(json!({
                "Node": {"Node": "n", "Address": "h", "Meta": node},
                "Service": {"ID": "a", "Service": "s", "Port": 80, "Meta": meta, "Locality": locality},
            }))
        };
        let locality = json!({"Region": "r", "Zone": "l"});
        let node = json!({"zone": "n"});
        let own = entry(
            json!({"zone": "m", "k": "v"}),
            locality.clone(),
            node.clone(),
        );
        assert_eq!(own.zone.as_deref(), Some("m"));
        assert_eq!(own.metadata, BTreeMap::from([("k".into(), "v".into())]));
        assert_eq!(
            entry(json!(null), locality, node.clone()).zone.as_deref(),
            Some("l")
        );
        assert_eq!(entry(json!({}), json!({}), node).zone.as_deref(), Some("n"));
        assert_eq!(entry(json!({}), json!(null), json!(null)).zone, None);
    }
}
