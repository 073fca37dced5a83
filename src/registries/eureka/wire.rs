//! Eureka's JSON, as it was made from XML.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::discovery::{Instance, Status};

#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) applications: Applications,
}

#[derive(Deserialize)]
pub(super) struct Applications {
    #[serde(rename = "apps__hashcode", alias = "apps_hashcode")]
    pub(super) hashcode: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) application: Vec<Application>,
}

#[derive(Deserialize)]
pub(super) struct Application {
    pub(super) name: String,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) instance: Vec<Described>,
}

/// An instance, as Eureka describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    instance_id: Option<String>,
    host_name: Option<String>,
    ip_addr: Option<String>,
    status: Option<String>,
    overridden_status: Option<String>,
    /// Servers write both, and older clients this one alone.
    #[serde(rename = "overriddenstatus")]
    old_overridden_status: Option<String>,
    #[serde(rename = "vipAddress")]
    pub(super) vip: Option<String>,
    #[serde(rename = "secureVipAddress")]
    pub(super) secure_vip: Option<String>,
    action_type: Option<String>,
    port: Option<Port>,
    secure_port: Option<Port>,
    data_center_info: Option<DataCenter>,
    metadata: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(rename = "$")]
    number: Value,
    #[serde(rename = "@enabled", default)]
    enabled: Value,
}

#[derive(Deserialize)]
struct DataCenter {
    metadata: Option<BTreeMap<String, Value>>,
}

/// What a change does to an instance.
pub(super) enum Action {
    Put,
    Delete,
}

/// Eureka's statuses, of which it counts each.
#[derive(Clone, Copy)]
pub(super) enum State {
    Up,
    Down,
    Starting,
    OutOfService,
    Unknown,
}

impl Described {
    /// Its id; without one of its own, its machine's or its host name.
    pub(super) fn id(&self) -> Option<String> {
        let own = self.instance_id.clone().filter(|id| !id.is_empty());
        own.or_else(|| self.data_center("instance-id"))
            .or_else(|| self.host_name.clone())
    }

    pub(super) fn action(&self) -> Action {
        match self.action_type.as_deref() {
            Some("DELETED") => Action::Delete,
            _ => Action::Put,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.status.as_deref() {
            Some("UP") => State::Up,
            Some("DOWN") => State::Down,
            Some("STARTING") => State::Starting,
            Some("OUT_OF_SERVICE") => State::OutOfService,
            _ => State::Unknown,
        }
    }

    /// None if it has neither host nor port at which it can be called.
    pub(super) fn into_instance(self) -> Option<Instance> {
        let id = self.id()?;
        // Who has both and enabled the secure one wants it used.
        let secure = self.secure_port.as_ref().and_then(Port::open);
        let port = secure.or_else(|| self.port.as_ref().and_then(Port::open))?;
        let zone = self.data_center("availability-zone");
        let status = match self.state() {
            _ if self.is_overridden() => Status::OutOfService,
            State::Up => Status::Up,
            State::Starting => Status::Starting,
            State::OutOfService => Status::OutOfService,
            State::Down | State::Unknown => Status::Down,
        };
        let hosts = [self.host_name, self.ip_addr];
        let host = hosts.into_iter().flatten().find(|host| !host.is_empty())?;

        let mut instance = Instance::new(id, host.trim_matches(['[', ']']), port);
        instance.secure = secure.is_some();
        instance.status = status;
        for (key, value) in self.metadata.unwrap_or_default() {
            if let (false, Some(value)) = (key == CLASS, text(&value)) {
                instance.metadata.insert(key, value);
            }
        }
        instance.zone = instance.metadata.remove(ZONE).or(zone);
        if let Some(weight) = instance
            .metadata
            .get(WEIGHT)
            .and_then(|text| text.parse().ok())
        {
            instance.weight = weight;
            instance.metadata.remove(WEIGHT);
        }
        Some(instance)
    }

    /// Whether an operator took it out. That may be known before its status says so.
    fn is_overridden(&self) -> bool {
        let words = [&self.overridden_status, &self.old_overridden_status];
        let mut words = words.into_iter().flatten();
        words.any(|word| word == name(State::OutOfService))
    }

    fn data_center(&self, key: &str) -> Option<String> {
        let metadata = self.data_center_info.as_ref()?.metadata.as_ref()?;
        metadata.get(key).and_then(text)
    }
}

impl Port {
    /// Its number, if it is enabled.
    fn open(&self) -> Option<u16> {
        if text(&self.enabled)? != "true" {
            return None;
        }
        let number = text(&self.number)?.parse().ok()?;
        (number != 0).then_some(number)
    }
}

/// The body that registers `instance`, `written` at that many milliseconds since 1970.
pub(super) fn registration(
    service: &str,
    instance: &Instance,
    told: Status,
    ttl: Duration,
    written: u64,
) -> Value {
    let mut metadata = instance.metadata.clone();
    if let Some(zone) = &instance.zone {
        metadata.insert(ZONE.into(), zone.clone());
    }
    if instance.weight != 1 {
        metadata.insert(WEIGHT.into(), instance.weight.to_string());
    }
    let port = |secure| {
        let enabled = if secure == instance.secure {
            "true"
        } else {
            "false"
        };
        json!({ "$": instance.port, "@enabled": enabled })
    };
    let seconds = ttl.as_secs_f64().ceil().max(1.0) as u64;
    json!({ "instance": {
        "instanceId": instance.id,
        "app": service.to_uppercase(),
        "hostName": instance.host,
        "ipAddr": instance.host,
        "vipAddress": service,
        "secureVipAddress": service,
        "status": status(told),
        "port": port(false),
        "securePort": port(true),
        // Without the class, the server cannot tell which kind it is.
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {
            "renewalIntervalInSecs": (seconds / 3).max(1),
            "durationInSecs": seconds,
        },
        "metadata": metadata,
        "lastDirtyTimestamp": written.to_string(),
    }})
}

/// What to tell of an instance's status. `OUT_OF_SERVICE` is the operator's word: from an instance, the server neither
/// takes it while it is up nor takes it back.
pub(super) fn status(status: Status) -> &'static str {
    name(match status {
        Status::Up => State::Up,
        Status::Starting => State::Starting,
        Status::OutOfService | Status::Down => State::Down,
    })
}

pub(super) fn name(state: State) -> &'static str {
    match state {
        State::Up => "UP",
        State::Down => "DOWN",
        State::Starting => "STARTING",
        State::OutOfService => "OUT_OF_SERVICE",
        State::Unknown => "UNKNOWN",
    }
}

/// What became a string, a number or a boolean on its way from XML.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A list; where it has one element, that may stand alone.
fn one_or_many<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object or a list of them")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut many = Vec::new();
            while let Some(one) = list.next_element()? {
                many.push(one);
            }
            Ok(many)
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

const CLASS: &str = "@class";
/// Keys of the metadata: `zone` as Spring Cloud has it.
const ZONE: &str = "zone";
const WEIGHT: &str = "weight";
