//! An instance as etcd keeps it: the layout of the official client's `naming/endpoints`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::discovery::{Instance, Status};

/// The value of a key.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    op: u8,
    addr: String,
    #[serde(default)]
    metadata: Value,
}

/// The instance of that `id`, if `value` describes one that can be called.
pub(super) fn decode(id: &str, value: &[u8]) -> Option<Instance> {
    let endpoint: Endpoint = serde_json::from_slice(value).ok()?;
    if endpoint.op != ADD {
        return None;
    }
    let (host, port) = endpoint.addr.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let port = port.parse().ok().filter(|&port| port != 0)?;
    // Brackets are for IPv6. A colon without them is part of a scheme or of an address without a port.
    let host = bare.unwrap_or(host);
    if host.is_empty() || host.contains(['/', '[', ']', '@', '?', '#']) {
        return None;
    }
    if host.contains(':') != bare.is_some() {
        return None;
    }

    let mut instance = Instance::new(id, host, port);
    let Value::Object(metadata) = endpoint.metadata else {
        return Some(instance);
    };
    for (key, value) in metadata {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            // Other clients write what they like: numbers, lists, trees.
            other => other.to_string(),
        };
        instance.metadata.insert(key, text);
    }
    let metadata = &mut instance.metadata;
    instance.secure = metadata.get(SECURE).is_some_and(|text| text == "true");
    instance.zone = metadata.remove(ZONE).filter(|zone| !zone.is_empty());
    instance.weight = take(metadata, WEIGHT, |text| text.parse().ok()).unwrap_or(1);
    instance.status = take(metadata, STATUS, status).unwrap_or_default();
    if instance.secure {
        instance.metadata.remove(SECURE);
    }
    Some(instance)
}

/// `instance` with `status`, as the value of its key.
pub(super) fn encode(instance: &Instance, status: Status) -> String {
    let weight = instance.weight.to_string();
    let mut metadata: BTreeMap<&str, &str> = (instance.metadata.iter())
        .map(|(key, value)| (&**key, &**value))
        .collect();
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE, zone);
    }
    if instance.secure {
        metadata.insert(SECURE, "true");
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT, &weight);
    }
    if status != Status::Up {
        metadata.insert(STATUS, word(status));
    }
    let endpoint = Endpoint {
        op: ADD,
        addr: instance.authority(),
        metadata: metadata.into_iter().collect(),
    };
    // Strings and numbers only: this cannot fail.
    serde_json::to_string(&endpoint).unwrap_or_default()
}

/// The entry `key`, taken out of the metadata if it can be read. What cannot means something else to somebody else.
fn take<T>(
    metadata: &mut BTreeMap<String, String>,
    key: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let read = read(metadata.get(key)?)?;
    metadata.remove(key);
    Some(read)
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "up",
        Status::Starting => "starting",
        Status::OutOfService => "out of service",
        Status::Down => "down",
    }
}

fn status(text: &str) -> Option<Status> {
    use Status::{Down, OutOfService, Starting, Up};
    let known = [Up, Starting, OutOfService, Down];
    known.into_iter().find(|&status| word(status) == text)
}

/// The only operation that is ever stored: removing an instance is deleting its key.
const ADD: u8 = 0;
/// Keys of the metadata.
const ZONE: &str = "zone";
const SECURE: &str = "secure";
const WEIGHT: &str = "weight";
const STATUS: &str = "status";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_official_client_writes_is_read() {
        let plain = br#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;
        assert_eq!(
            decode("a", plain).unwrap(),
            Instance::new("a", "10.0.0.1", 80)
        );
        let text = br#"{"Op":0,"Addr":"[::1]:80","Metadata":"v1"}"#;
        assert_eq!(decode("a", text).unwrap(), Instance::new("a", "::1", 80));
        let tree = br#"{"Addr":"h:80","Metadata":{"weight":7,"zone":"z","n":1.5,"l":["x"],"status":"active","e":null}}"#;
        let read = decode("a", tree).unwrap();
        let written = Instance::new("a", "h", 80).weight(7).zone("z");
        let written = written.metadata("n", "1.5").metadata("l", "[\"x\"]");
        assert_eq!(read, written.metadata("status", "active"));
    }

    #[test]
    fn the_value_is_that_of_the_official_client() {
        let instance = Instance::new("a", "10.0.0.1", 80);
        let plain = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{}}"#;
        assert_eq!(encode(&instance, Status::Up), plain);
        let instance = instance
            .weight(3)
            .zone("z1")
            .secure(true)
            .metadata("k", "v");
        assert_eq!(
            encode(&instance, Status::Starting),
            r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"k":"v","secure":"true","status":"starting","weight":"3","zone":"z1"}}"#
        );
    }

    #[test]
    fn what_cannot_be_called_is_left_out() {
        for value in [
            "",
            "10.0.0.1:80",
            "null",
            "{}",
            r#"{"Op":1,"Addr":"10.0.0.1:80"}"#,
            r#"{"Addr":"10.0.0.1"}"#,
            r#"{"Addr":"10.0.0.1:0"}"#,
            r#"{"Addr":"10.0.0.1:65536"}"#,
            r#"{"Addr":":80"}"#,
            r#"{"Addr":"::1:80"}"#,
            r#"{"Addr":"http://h:80"}"#,
            r#"{"Addr":"h/x:80"}"#,
            r#"{"Addr":"u@h:80"}"#,
            r#"{"Addr":"[]:80"}"#,
            r#"{"Addr":"[h]:80"}"#,
            r#"{"Addr":"[::1/x]:80"}"#,
        ] {
            assert_eq!(decode("a", value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_whatever_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode("a", &value);
        }

        #[test]
        fn no_address_and_no_metadata_make_it_panic(addr in "[\\[\\]:a-f0-9.é]{0,12}", key in "zone|weight|secure|status", text in ".{0,8}") {
            let value = serde_json::json!({"Op": 0, "Addr": addr, "Metadata": {key: text}});
            let _ = decode("a", value.to_string().as_bytes());
        }

        #[test]
        fn what_is_written_is_read(
            host in "[a-z0-9.-]{1,12}|[0-9a-f]{1,4}::[0-9a-f]{1,4}",
            port in 1..=u16::MAX,
            weight: u32,
            secure: bool,
            zone in proptest::option::of("[a-z]{1,4}"),
            metadata in proptest::collection::btree_map("k[a-z]{0,3}", ".{0,9}", 0..3),
            nth in 0..4_usize,
        ) {
            let status = [Status::Up, Status::Starting, Status::OutOfService, Status::Down][nth];
            let mut instance = Instance::new("a", host, port).weight(weight).secure(secure).status(status);
            instance.zone = zone;
            instance.metadata = metadata;
            let value = encode(&instance, status);
            prop_assert_eq!(decode("a", value.as_bytes()), Some(instance));
        }
    }
}
