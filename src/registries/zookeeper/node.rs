//! What a node says of an instance: the `ServiceInstance` of Curator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::discovery::{Instance, Status};

/// The instance of the node `id`, if its data is one that can be called.
pub(super) fn decode(id: &str, data: &[u8]) -> Option<Instance> {
    let told: Told = serde_json::from_slice(data).ok()?;
    let (port, secure) = match (port(&told.ssl_port), port(&told.port)) {
        (Some(port), _) => (port, true),
        (None, port) => (port?, false),
    };
    let host = told.address?;
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() {
        return None;
    }
    let mut instance = Instance::new(id, host, port).secure(secure);
    instance.metadata = metadata(told.payload);
    let mut take = |key| instance.metadata.remove(key);
    let (zone, weight, state) = (take(ZONE), take(WEIGHT), take(STATUS));
    instance.zone = zone.filter(|zone| !zone.is_empty());
    instance.weight = weight.and_then(|text| text.parse().ok()).unwrap_or(1);
    instance.status = match (told.enabled, state.as_deref().map_or(Status::Up, status)) {
        (Some(false), Status::Up) => Status::OutOfService,
        (_, status) => status,
    };
    Some(instance)
}

/// For whom a payload is written: Curator's clients fail at any that is not of the class they are made for, and then at all
/// instances of the service.
#[derive(Clone, Copy, Default)]
pub(super) enum Payload {
    /// For all, as far as may be: none where there is nothing to tell, else the metadata.
    #[default]
    Plain,
    /// For Spring Cloud.
    Spring,
}

/// The data of the node of `instance`, which is as `status` says and was registered at `since`, in milliseconds since
/// 1970.
pub(super) fn encode(
    service: &str,
    instance: &Instance,
    status: Status,
    since: u64,
    payload: Payload,
) -> Vec<u8> {
    let mut metadata: BTreeMap<_, _> = (instance.metadata.iter())
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let weight = instance.weight.to_string();
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE, zone);
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT, &weight);
    }
    let is_bare = metadata.is_empty();
    metadata.insert(STATUS, word(status));
    let payload = match payload {
        Payload::Plain if is_bare => Value::Null,
        Payload::Plain => json!(metadata),
        Payload::Spring => {
            json!({CLASS: SPRING, "id": instance.id, "name": service, "metadata": metadata})
        }
    };
    let port = instance.port;
    let told = ServiceInstance {
        name: service,
        id: &instance.id,
        address: &instance.host,
        port: (!instance.secure).then_some(port),
        ssl_port: instance.secure.then_some(port),
        payload,
        registered: since,
        service_type: "DYNAMIC",
        uri_spec: UriSpec::new(instance.secure),
        enabled: (status != Status::Up).then_some(false),
    };
    // A map with keys that are text and values that are numbers and text can always be written.
    serde_json::to_vec(&told).unwrap_or_default()
}

/// What others may have written. Unknown fields are theirs, and a wrong type in one that is not needed does no harm.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    port: Value,
    #[serde(default, rename = "sslPort")]
    ssl_port: Value,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    enabled: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceInstance<'a> {
    name: &'a str,
    id: &'a str,
    address: &'a str,
    port: Option<u16>,
    ssl_port: Option<u16>,
    payload: Value,
    #[serde(rename = "registrationTimeUTC")]
    registered: u64,
    service_type: &'static str,
    uri_spec: UriSpec,
    /// Left out where it is `true`, as is the default: a Curator that does not know it refuses the whole instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

/// How a client of Curator makes a URL of the instance.
#[derive(Serialize)]
struct UriSpec {
    parts: [Part; 5],
}

#[derive(Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

impl UriSpec {
    fn new(secure: bool) -> Self {
        let port = if secure { "ssl-port" } else { "port" };
        let parts = [
            ("scheme", true),
            ("://", false),
            ("address", true),
            (":", false),
            (port, true),
        ];
        Self {
            parts: parts.map(|(value, variable)| Part { value, variable }),
        }
    }
}

fn port(value: &Value) -> Option<u16> {
    let port = match value {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    port.filter(|&port| port != 0)
}

/// The metadata of Spring Cloud, or else the payload's own fields, or the payload itself where it has none.
fn metadata(payload: Value) -> BTreeMap<String, String> {
    let fields = match payload {
        Value::Object(mut fields) => match fields.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            Some(other) => {
                fields.insert("metadata".into(), other);
                fields
            }
            None => fields,
        },
        Value::Null => Map::new(),
        other => Map::from_iter([("payload".into(), other)]),
    };
    let text = |value| match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let told = fields.into_iter().filter(|(key, _)| key != CLASS);
    told.filter_map(|(key, value)| Some((key, text(value)?)))
        .collect()
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "UP",
        Status::Starting => "STARTING",
        Status::OutOfService => "OUT_OF_SERVICE",
        Status::Down => "DOWN",
    }
}

fn status(word: &str) -> Status {
    match word.to_ascii_uppercase().as_str() {
        "UP" => Status::Up,
        "STARTING" => Status::Starting,
        "OUT_OF_SERVICE" => Status::OutOfService,
        _ => Status::Down,
    }
}

/// Keys of the metadata, as Spring Cloud has them.
const ZONE: &str = "zone";
const WEIGHT: &str = "weight";
const STATUS: &str = "instance_status";
/// What Java's own side needs to read a payload.
const CLASS: &str = "@class";
const SPRING: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn decoded(data: Value) -> Option<Instance> {
        decode("a", data.to_string().as_bytes())
    }

    #[test]
    fn what_curator_writes_is_read() {
        let curator = json!({
            "name": "orders", "id": "a", "address": "10.0.0.1", "port": 80, "sslPort": null, "payload": null,
            "registrationTimeUTC": 1_700_000_000_000_u64, "serviceType": "DYNAMIC", "uriSpec": null, "enabled": true,
        });
        assert_eq!(decoded(curator), Some(Instance::new("a", "10.0.0.1", 80)));
    }

    #[test]
    fn a_payload_is_metadata_whatever_its_class() {
        let spring = json!({
            "@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
            "id": "orders-1", "name": "orders",
            "metadata": {"instance_status": "UP", "zone": "z1", "weight": "3", "v": "7"},
        });
        let spoken = json!({"@class": "com.example.Details", "v": 7, "weight": 3, "zone": "z1", "tags": ["x"]});
        let plain = Instance::new("a", "h", 80);
        let told = plain.clone().zone("z1").weight(3).metadata("v", "7");
        for (payload, wanted) in [
            (spring, told.clone()),
            (spoken, told),
            (json!("blue"), plain.clone().metadata("payload", "blue")),
            (json!(["blue"]), plain.clone()),
            (json!({"zone": "", "weight": "many"}), plain.clone()),
            (
                json!({"metadata": "none"}),
                plain.metadata("metadata", "none"),
            ),
        ] {
            let data = json!({"address": "h", "port": 80, "payload": payload});
            assert_eq!(decoded(data), Some(wanted), "{payload}");
        }
    }

    #[test]
    fn the_status_is_what_enabled_and_the_metadata_say() {
        let table = [
            (json!(null), json!(null), Status::Up),
            (json!(true), json!("UP"), Status::Up),
            (json!(true), json!("up"), Status::Up),
            (json!(false), json!("UP"), Status::OutOfService),
            (json!(false), json!(null), Status::OutOfService),
            (json!(false), json!("STARTING"), Status::Starting),
            (json!(true), json!("OUT_OF_SERVICE"), Status::OutOfService),
            (json!(null), json!("DOWN"), Status::Down),
            (json!(null), json!("on fire"), Status::Down),
        ];
        for (enabled, said, status) in table {
            let payload = json!({"metadata": {"instance_status": said}});
            let data = json!({"address": "h", "port": 80, "enabled": enabled, "payload": payload});
            assert_eq!(decoded(data.clone()).unwrap().status, status, "{data}");
        }
    }

    #[test]
    fn a_port_for_tls_comes_first_and_without_any_it_is_left_out() {
        let table = [
            (json!(80), json!(null), Some((80, false))),
            (json!(80), json!(443), Some((443, true))),
            (json!(null), json!(443), Some((443, true))),
            (json!("80"), json!(0), Some((80, false))),
            (json!(null), json!(null), None),
            (json!(0), json!(-1), None),
            (json!(65_536), json!("x"), None),
        ];
        for (plain, tls, wanted) in table {
            let data = json!({"address": "h", "port": plain, "sslPort": tls});
            let found = decoded(data.clone()).map(|instance| (instance.port, instance.secure));
            assert_eq!(found, wanted, "{data}");
        }
        for address in [json!(""), json!(null), json!(7)] {
            assert_eq!(decoded(json!({"address": address, "port": 80})), None);
        }
    }

    fn told(instance: &Instance, status: Status, payload: Payload) -> Value {
        serde_json::from_slice(&encode("orders", instance, status, 7, payload)).unwrap()
    }

    #[test]
    fn one_that_is_up_has_no_word_that_an_old_curator_refuses() {
        let instance = Instance::new("a", "h", 80);
        let up = told(&instance, Status::Up, Payload::Plain);
        let keys: Vec<_> = up.as_object().unwrap().keys().collect();
        let known = [
            "address",
            "id",
            "name",
            "payload",
            "port",
            "registrationTimeUTC",
            "serviceType",
            "sslPort",
            "uriSpec",
        ];
        assert_eq!(keys, known);
        let down = told(&instance, Status::Down, Payload::Plain);
        assert_eq!(down["enabled"], false);
    }

    #[test]
    fn a_payload_is_written_only_where_there_is_something_to_tell_or_spring_cloud_reads_it() {
        let bare = Instance::new("a", "h", 80);
        let zoned = bare.clone().zone("z1");
        let up = |instance, payload| told(instance, Status::Up, payload)["payload"].take();
        assert_eq!(up(&bare, Payload::Plain), Value::Null);
        assert_eq!(
            up(&zoned, Payload::Plain),
            json!({"zone": "z1", "instance_status": "UP"})
        );
        assert_eq!(
            up(&bare, Payload::Spring),
            json!({"@class": SPRING, "id": "a", "name": "orders", "metadata": {"instance_status": "UP"}})
        );

        // Nor is the word of a status.
        let data = encode("orders", &bare, Status::Down, 7, Payload::Plain);
        assert_eq!(decode("a", &data), Some(bare.status(Status::OutOfService)));
    }

    prop_compose! {
        fn instances()(
            host in "[a-z0-9.:]{1,20}",
            port in 1..=u16::MAX,
            secure: bool,
            zone in proptest::option::of(".{1,9}"),
            weight: u32,
            metadata in btree_map("[a-y]{1,5}", ".{0,9}", 0..4),
        ) -> Instance {
            let mut instance = Instance::new("a", host, port).secure(secure).weight(weight);
            instance.zone = zone;
            instance.metadata = metadata;
            instance
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            instance in instances(),
            status in proptest::sample::select(vec![Status::Up, Status::Starting, Status::OutOfService, Status::Down]),
        ) {
            let data = encode("orders", &instance, status, 7, Payload::Spring);
            let instance = instance.status(status);
            prop_assert_eq!(decode("a", &data), Some(instance.clone()));
            let instance = instance.zone("z1");
            let data = encode("orders", &instance, status, 7, Payload::Plain);
            prop_assert_eq!(decode("a", &data), Some(instance));
        }

        #[test]
        fn whatever_a_node_holds_is_read_without_a_panic(data in vec(any::<u8>(), 0..200)) {
            let _ = decode("a", &data);
        }

        #[test]
        fn what_is_damaged_is_read_without_a_panic(
            instance in instances(),
            at: proptest::sample::Index,
            byte: u8,
            cut: proptest::sample::Index,
        ) {
            let mut data = encode("orders", &instance, Status::Up, 7, Payload::Spring);
            let (at, cut) = (at.index(data.len()), cut.index(data.len()));
            data[at] = byte;
            let _ = decode("a", &data);
            let _ = decode("a", &data[..cut]);
        }
    }
}
