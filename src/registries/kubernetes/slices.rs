use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::port::Wanted;
use super::wire::{Conditions, Endpoint, EndpointSlice, number};
use crate::discovery::{Instance, Status};

/// The slices of a service, by name. Together they say which endpoints there are; one that is being moved from slice to
/// slice may be in two of them.
#[derive(Default)]
pub(super) struct Slices {
    all: BTreeMap<String, EndpointSlice>,
}

/// An endpoint in one of the slices.
struct Found {
    instance: Instance,
    /// Whether it takes calls although it is about to end.
    is_draining: bool,
    /// What comes first is believed: IPv4 before IPv6 before names, since a pod of two families is one instance; then
    /// the slice that changed last.
    rank: (u8, Reverse<u64>),
}

/// No endpoint has the port that is wanted; those are the ports that there are.
#[derive(Debug, PartialEq)]
pub(super) struct NoPort(pub(super) String);

impl Slices {
    pub(super) fn put(&mut self, slice: EndpointSlice) {
        self.all.insert(slice.metadata.name.clone(), slice);
    }

    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        self.all.remove(&slice.metadata.name);
    }

    /// The instances, by id, each once.
    pub(super) fn instances(&self, wanted: &Wanted) -> Result<Vec<Instance>, NoPort> {
        let mut found = Vec::new();
        let mut others = BTreeSet::new();
        for slice in self.all.values() {
            let ports = slice.ports.as_deref().unwrap_or_default();
            let endpoints = slice.endpoints.as_deref().unwrap_or_default();
            match wanted.find(ports) {
                Some(port) => found.extend(endpoints.iter().filter_map(|endpoint| {
                    let mut found = endpoint.found(slice, port.number)?;
                    found.instance.secure = port.secure;
                    Some(found)
                })),
                None if endpoints.is_empty() => {}
                None if ports.is_empty() => others.extend(["any".to_owned()]),
                None => others.extend(ports.iter().map(ToString::to_string)),
            }
        }
        if found.is_empty() && !others.is_empty() {
            return Err(NoPort(Vec::from_iter(others).join(", ")));
        }
        Ok(join(found))
    }
}

fn join(mut found: Vec<Found>) -> Vec<Instance> {
    found.sort_by(|a, b| (&a.instance.id, &a.rank).cmp(&(&b.instance.id, &b.rank)));
    found.dedup_by(|a, b| a.instance.id == b.instance.id);

    // An address that has gone to another pod is that of the one that takes calls.
    found.sort_by_key(|found| (found.instance.status != Status::Up, found.rank));
    let mut addresses = HashSet::new();
    found.retain(|found| addresses.insert(found.instance.authority()));

    // As kube-proxy does: who is about to end, but still takes calls, is better than nobody.
    if !found
        .iter()
        .any(|found| found.instance.status == Status::Up)
    {
        for found in found.iter_mut().filter(|found| found.is_draining) {
            found.instance.status = Status::Up;
        }
    }
    let mut instances: Vec<_> = found.into_iter().map(|found| found.instance).collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    instances
}

impl Endpoint {
    fn found(&self, slice: &EndpointSlice, port: u16) -> Option<Found> {
        // Several are the same endpoint, and consumers are to take the first.
        let host = self.addresses.as_ref()?.first()?;
        if host.is_empty() {
            return None;
        }
        let mut instance = Instance::new("", host, port);
        let target = self
            .target_ref
            .as_ref()
            .and_then(|target| target.name.clone());
        instance.id = target
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| instance.authority());
        instance.zone = self.zone.clone().filter(|zone| !zone.is_empty());
        instance.status = self.conditions().status();
        if let Some(node) = &self.node_name {
            instance.metadata.insert(NODE.into(), node.clone());
        }
        let hints = self
            .hints
            .as_ref()
            .and_then(|hints| hints.for_zones.as_ref());
        if let Some(zones) = hints.filter(|zones| !zones.is_empty()) {
            let zones: Vec<_> = zones.iter().map(|zone| &*zone.name).collect();
            instance.metadata.insert(HINTS.into(), zones.join(","));
        }
        let family = match &*slice.address_type {
            "IPv4" => 0,
            "IPv6" => 1,
            _ => 2,
        };
        Some(Found {
            is_draining: self.conditions().is_draining(),
            instance,
            rank: (family, Reverse(number(&slice.metadata.version))),
        })
    }

    fn conditions(&self) -> &Conditions {
        self.conditions.as_ref().unwrap_or(&UNKNOWN)
    }
}

impl Conditions {
    /// What is not known means yes for `ready` and no for `terminating`.
    fn status(&self) -> Status {
        match (self.ready, self.terminating) {
            (None | Some(true), _) => Status::Up,
            (_, Some(true)) => Status::OutOfService,
            _ => Status::Down,
        }
    }

    fn is_draining(&self) -> bool {
        self.status() == Status::OutOfService && self.serving == Some(true)
    }
}

const UNKNOWN: Conditions = Conditions {
    ready: None,
    serving: None,
    terminating: None,
};
/// Keys of the metadata.
const NODE: &str = "node";
const HINTS: &str = "hints.zones";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::registries::kubernetes::wire::{Event, List};

    fn slice(name: &str, version: u64, endpoints: Value) -> Value {
        json!({
            "metadata": {"name": name, "resourceVersion": version.to_string()},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 80}],
        })
    }

    fn pod(name: &str, address: &str, conditions: Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}})
    }

    fn instances(slices: impl IntoIterator<Item = Value>) -> Vec<Instance> {
        let mut all = Slices::default();
        for slice in slices {
            all.put(serde_json::from_value(slice).unwrap());
        }
        all.instances(&Wanted::Any).unwrap()
    }

    fn told(slices: impl IntoIterator<Item = Value>) -> Vec<(String, String, Status)> {
        let instances = instances(slices).into_iter();
        instances.map(|i| (i.id, i.host, i.status)).collect()
    }

    fn entry(id: &str, host: &str, status: Status) -> (String, String, Status) {
        (id.to_owned(), host.to_owned(), status)
    }

    #[test]
    fn conditions_make_the_status() {
        use Status::{Down, OutOfService, Up};
        let t = Some(true);
        let f = Some(false);
        for (ready, serving, terminating, status) in [
            (None, None, None, Up),
            (t, None, None, Up),
            (t, t, f, Up),
            // Of a Service that publishes what is not ready.
            (t, t, t, Up),
            (None, None, t, Up),
            (f, None, None, Down),
            (f, f, f, Down),
            (f, t, f, Down),
            (f, t, t, OutOfService),
            (f, f, t, OutOfService),
            (f, None, t, OutOfService),
        ] {
            let conditions = Conditions {
                ready,
                serving,
                terminating,
            };
            assert_eq!(
                conditions.status(),
                status,
                "{ready:?} {serving:?} {terminating:?}"
            );
        }
        assert_eq!(
            told([slice("s", 1, json!([{"addresses": ["10.0.0.1"]}]))])[0].2,
            Up
        );
        let unsaid = pod("a", "10.0.0.1", json!(null));
        assert_eq!(told([slice("s", 1, json!([unsaid]))])[0].2, Up);
    }

    #[test]
    fn who_drains_is_called_only_if_nobody_is_ready() {
        let drains = pod(
            "a",
            "10.0.0.1",
            json!({"ready": false, "serving": true, "terminating": true}),
        );
        let ends = pod(
            "b",
            "10.0.0.2",
            json!({"ready": false, "serving": false, "terminating": true}),
        );
        let down = pod("c", "10.0.0.3", json!({"ready": false}));
        let ready = pod("d", "10.0.0.4", json!({"ready": true}));
        let statuses = |pods: &[&Value]| -> Vec<_> {
            let told = told([slice("s", 1, json!(pods))]);
            told.into_iter().map(|(_, _, status)| status).collect()
        };
        use Status::{Down, OutOfService, Up};
        assert_eq!(statuses(&[&drains, &ends, &down]), [Up, OutOfService, Down]);
        let all = statuses(&[&drains, &ends, &down, &ready]);
        assert_eq!(all, [OutOfService, OutOfService, Down, Up]);
    }

    #[test]
    fn slices_are_one_list_and_what_is_in_two_of_them_is_as_the_later_says() {
        let old = slice(
            "y",
            9,
            json!([
                pod("a", "10.0.0.1", json!({"ready": false})),
                pod("b", "10.0.0.2", json!({}))
            ]),
        );
        let new = slice(
            "x",
            10,
            json!([
                pod("a", "10.0.0.1", json!({"ready": true})),
                pod("c", "10.0.0.3", json!({}))
            ]),
        );
        let expected = [
            entry("a", "10.0.0.1", Status::Up),
            entry("b", "10.0.0.2", Status::Up),
            entry("c", "10.0.0.3", Status::Up),
        ];
        assert_eq!(told([old.clone(), new.clone()]), expected);
        let mut older = new;
        older["metadata"]["resourceVersion"] = "8".into();
        assert_eq!(told([old, older])[0], entry("a", "10.0.0.1", Status::Down));
    }

    #[test]
    fn an_address_that_has_gone_to_another_pod_is_that_pods() {
        let gone = pod(
            "old",
            "10.0.0.1",
            json!({"ready": false, "terminating": true}),
        );
        let new = pod("new", "10.0.0.1", json!({"ready": true}));
        let expected = [entry("new", "10.0.0.1", Status::Up)];
        assert_eq!(
            told([slice("x", 9, json!([gone])), slice("y", 8, json!([new]))]),
            expected
        );
    }

    #[test]
    fn a_pod_of_two_families_is_one_instance() {
        let mut six = slice(
            "six",
            9,
            json!([
                pod("a", "fd00::1", json!({})),
                pod("b", "fd00::2", json!({}))
            ]),
        );
        six["addressType"] = "IPv6".into();
        let four = slice("four", 8, json!([pod("a", "10.0.0.1", json!({}))]));
        let expected = [
            entry("a", "10.0.0.1", Status::Up),
            entry("b", "fd00::2", Status::Up),
        ];
        assert_eq!(told([six, four]), expected);
    }

    #[test]
    fn everything_that_is_said_of_an_endpoint_is_kept() {
        let endpoints = json!([{
            "addresses": ["db.example.com", "other.example.com"],
            "nodeName": "n1",
            "zone": "z1",
            "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}]},
            "deprecatedTopology": {"x": "y"},
        }]);
        let mut one = slice("s", 1, endpoints);
        one["addressType"] = "FQDN".into();
        one["ports"] = json!([{"name": "https", "port": 443}]);
        let expected = Instance::new("db.example.com:443", "db.example.com", 443);
        let expected = expected.zone("z1").secure(true);
        let expected = expected
            .metadata("node", "n1")
            .metadata("hints.zones", "z1,z2");
        assert_eq!(instances([one]), [expected]);
    }

    #[test]
    fn what_has_no_address_is_left_out() {
        let endpoints = json!([{"addresses": []}, {"addresses": null}, {}, {"addresses": [""]}]);
        assert_eq!(instances([slice("s", 1, endpoints)]), []);
        assert_eq!(instances([slice("s", 1, json!(null))]), []);
    }

    #[test]
    fn a_port_that_no_slice_has_is_named_with_those_there_are() {
        let mut all = Slices::default();
        let mut two = slice("s", 1, json!([pod("a", "10.0.0.1", json!({}))]));
        two["ports"] = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
        all.put(serde_json::from_value(two).unwrap());
        assert_eq!(all.instances(&Wanted::Any), Err(NoPort("a 1, b 2".into())));
        assert!(all.instances(&Wanted::new("b")).is_ok());
        // While the ports of a Service change, some slices have the old ones.
        let one = slice("t", 2, json!([pod("b", "10.0.0.2", json!({}))]));
        all.put(serde_json::from_value(one).unwrap());
        assert_eq!(all.instances(&Wanted::Any).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_whatever_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<List>(&bytes);
            let _ = serde_json::from_slice::<Event>(&bytes);
        }

        #[test]
        fn no_slice_whatever_makes_it_panic_and_no_id_or_address_comes_twice(
            endpoints in proptest::collection::vec(
                (0..3_usize, "[ab:é.\\[]{0,3}", "[ab]{0,1}", any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>(), 0..3_usize),
                0..12,
            ),
            port: i32,
            version in ".{0,3}",
        ) {
            let mut all = Slices::default();
            for nth in 0..3 {
                let family = ["IPv4", "IPv6", "?"][nth];
                let own = endpoints.iter().filter(|endpoint| endpoint.0 == nth);
                let own: Vec<_> = own.map(|(_, host, name, ready, serving, terminating, zones)| json!({
                    "addresses": [host],
                    "targetRef": {"name": name},
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                    "hints": {"forZones": vec![json!({"name": host}); *zones]},
                })).collect();
                all.put(serde_json::from_value(json!({
                    "metadata": {"name": nth.to_string(), "resourceVersion": version},
                    "addressType": family,
                    "endpoints": own,
                    "ports": [{"port": if nth == 0 { 80 } else { port }}],
                })).unwrap());
            }
            if let Ok(instances) = all.instances(&Wanted::Any) {
                prop_assert!(instances.is_sorted_by(|a, b| a.id < b.id));
                let addresses: HashSet<_> = instances.iter().map(Instance::authority).collect();
                prop_assert_eq!(addresses.len(), instances.len());
            }
        }
    }
}
