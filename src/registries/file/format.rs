use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::discovery::{Instance, Status};

/// The instances of each service.
pub(super) type Services = BTreeMap<String, Vec<Entry>>;

/// An instance in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) instance: Instance,
    /// Whether the instance wrote itself into the file, rather than an operator.
    pub(super) registered: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Toml,
    Json,
}

impl Format {
    /// The format of the file at `path`, by its ending.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("json") => Ok(Self::Json),
            _ => Err("its name ends neither in .toml nor in .json".to_owned()),
        }
    }

    /// What `text` says, or what is wrong with it.
    pub(super) fn parse(self, text: &str) -> Result<Services, String> {
        let value: Value = match self {
            Self::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        }?;
        let mut services = None;
        for (name, value) in table("the file", &value)? {
            match name.as_str() {
                "instances" => services = Some(table(name, value)?),
                _ => return Err(unknown(name, value, "instances")),
            }
        }
        // An empty file is one that is just being written, rather than a fleet that was shut down.
        let services = services.ok_or("it has no `instances`")?;
        let mut names = HashSet::new();
        let parsed = services.iter().map(|(service, list)| {
            let path = format!("instances.{service}");
            if !names.insert(service.to_ascii_lowercase()) {
                return Err(format!("{path} is there twice: the case does not count"));
            }
            Ok((service.clone(), instances(&path, list)?))
        });
        parsed.collect()
    }

    /// `services` as text, or why they cannot be written.
    pub(super) fn print(self, services: &Services) -> Result<String, String> {
        let services: Map<_, _> = services
            .iter()
            .map(|(service, list)| (service.clone(), list.iter().map(print).collect()))
            .collect();
        let value = json!({ "instances": services });
        match self {
            Self::Toml => toml::to_string(&value).map_err(|error| error.to_string()),
            Self::Json => Ok(format!("{value:#}\n")),
        }
    }
}

fn instances(path: &str, list: &Value) -> Result<Vec<Entry>, String> {
    let list = list
        .as_array()
        .ok_or_else(|| wrong(path, list, "a list of tables"))?;
    let mut ids = HashSet::new();
    let parsed = list.iter().enumerate().map(|(index, value)| {
        let path = format!("{path}[{index}]");
        let entry = entry(&path, value)?;
        let id = &entry.instance.id;
        if !ids.insert(id.clone()) {
            return Err(format!("{path}.id = {id:?} is there twice"));
        }
        Ok(entry)
    });
    parsed.collect()
}

fn entry(path: &str, value: &Value) -> Result<Entry, String> {
    let mut instance = Instance::new("", "", 0);
    let mut registered = false;
    for (name, value) in table(path, value)? {
        let path = &format!("{path}.{name}");
        match name.as_str() {
            "id" => instance.id = text(path, value)?,
            "host" => instance.host = host(path, value)?,
            "port" => instance.port = number(path, value, 1..=u16::MAX)?,
            "secure" => instance.secure = switch(path, value)?,
            "zone" => instance.zone = Some(text(path, value)?),
            "weight" => instance.weight = number(path, value, 0..=u32::MAX)?,
            "status" => instance.status = status(path, value)?,
            "metadata" => instance.metadata = metadata(path, value)?,
            "registered" => registered = switch(path, value)?,
            _ => {
                let known = "id, host, port, secure, zone, weight, status, metadata, registered";
                return Err(unknown(path, value, known));
            }
        }
    }
    if instance.host.is_empty() {
        return Err(format!("{path}.host is missing"));
    }
    if instance.port == 0 {
        return Err(format!("{path}.port is missing"));
    }
    if instance.id.is_empty() {
        instance.id = instance.authority();
    }
    Ok(Entry {
        instance,
        registered,
    })
}

fn table<'a>(path: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| wrong(path, value, "a table"))
}

fn text(path: &str, value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or_else(|| wrong(path, value, "a text that is not empty"))
}

fn host(path: &str, value: &Value) -> Result<String, String> {
    let host = text(path, value)?;
    if host.contains(['/', '[', ']', '@', ' ']) {
        let wanted = "a host name or an IP address, without scheme, port or brackets";
        return Err(wrong(path, value, wanted));
    }
    Ok(host)
}

fn number<T>(path: &str, value: &Value, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let wanted = format!("a whole number from {} to {}", range.start(), range.end());
            wrong(path, value, &wanted)
        })
}

fn switch(path: &str, value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| wrong(path, value, "true or false"))
}

fn status(path: &str, value: &Value) -> Result<Status, String> {
    let known = STATUSES.iter().find(|(name, _)| value == name);
    known
        .map(|(_, status)| *status)
        .ok_or_else(|| wrong(path, value, "up, starting, out_of_service or down"))
}

fn metadata(path: &str, value: &Value) -> Result<BTreeMap<String, String>, String> {
    let entries = table(path, value)?.iter().map(|(key, value)| {
        let text = value.as_str().map(str::to_owned);
        let text = text.ok_or_else(|| wrong(&format!("{path}.{key}"), value, "a text"))?;
        Ok((key.clone(), text))
    });
    entries.collect()
}

fn wrong(path: &str, value: &Value, wanted: &str) -> String {
    format!("{path} = {value}: must be {wanted}")
}

fn unknown(path: &str, value: &Value, known: &str) -> String {
    format!("{path} = {value}: no such field; there is {known}")
}

/// Only what is not the default, so that the file stays one that people read.
fn print(entry: &Entry) -> Value {
    let instance = &entry.instance;
    let mut value = json!({
        "id": instance.id,
        "host": instance.host,
        "port": instance.port,
    });
    let fields = [
        ("secure", instance.secure.then_some(Value::Bool(true))),
        ("zone", instance.zone.as_ref().map(|zone| json!(zone))),
        (
            "weight",
            (instance.weight != 1).then(|| json!(instance.weight)),
        ),
        (
            "status",
            (instance.status != Status::Up).then(|| json!(name(instance.status))),
        ),
        (
            "metadata",
            (!instance.metadata.is_empty()).then(|| json!(instance.metadata)),
        ),
        ("registered", entry.registered.then_some(Value::Bool(true))),
    ];
    for (field, content) in fields {
        if let Some(content) = content {
            value[field] = content;
        }
    }
    value
}

fn name(status: Status) -> &'static str {
    let known = STATUSES.iter().find(|(_, known)| *known == status);
    known.map_or("down", |(name, _)| name)
}

const STATUSES: [(&str, Status); 4] = [
    ("up", Status::Up),
    ("starting", Status::Starting),
    ("out_of_service", Status::OutOfService),
    ("down", Status::Down),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_field_and_its_value() {
        let table = [
            ("", "it has no `instances`"),
            (
                "policies = 1",
                "policies = 1: no such field; there is instances",
            ),
            ("instances = 1", "instances = 1: must be a table"),
            (
                "instances.a = 1",
                "instances.a = 1: must be a list of tables",
            ),
            (
                "instances.A = []\ninstances.a = []",
                "instances.a is there twice: the case does not count",
            ),
            ("instances.a = [1]", "instances.a[0] = 1: must be a table"),
            (
                "instances.a = [{ port = 1 }]",
                "instances.a[0].host is missing",
            ),
            (
                "instances.a = [{ host = 'h' }]",
                "instances.a[0].port is missing",
            ),
            (
                "instances.a = [{ host = 'h', port = 0 }]",
                "instances.a[0].port = 0: must be a whole number from 1 to 65535",
            ),
            (
                "instances.a = [{ host = 'h', port = 70000 }]",
                "instances.a[0].port = 70000: must be a whole number from 1 to 65535",
            ),
            (
                "instances.a = [{ host = 'h', port = '80' }]",
                "instances.a[0].port = \"80\": must be a whole number from 1 to 65535",
            ),
            (
                "instances.a = [{ host = 'h', port = 80, weight = -1 }]",
                "instances.a[0].weight = -1: must be a whole number from 0 to 4294967295",
            ),
            (
                "instances.a = [{ host = 'http://h', port = 80 }]",
                "instances.a[0].host = \"http://h\": must be a host name or an IP address, without scheme, port or brackets",
            ),
            (
                "instances.a = [{ host = 'h', port = 80, status = 'UP' }]",
                "instances.a[0].status = \"UP\": must be up, starting, out_of_service or down",
            ),
            (
                "instances.a = [{ host = 'h', prot = 80 }]",
                "instances.a[0].prot = 80: no such field; there is id, host, port, secure, zone, weight, status, metadata, registered",
            ),
            (
                "instances.a = [{ host = 'h', port = 80, metadata = { v = 1 } }]",
                "instances.a[0].metadata.v = 1: must be a text",
            ),
            (
                "instances.a = [{ host = 'h', port = 80 }, { host = 'h', port = 80 }]",
                "instances.a[1].id = \"h:80\" is there twice",
            ),
        ];
        for (text, message) in table {
            assert_eq!(Format::Toml.parse(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_mistake_of_syntax_is_told_with_its_line() {
        let toml = Format::Toml.parse("[[instances.a]]\nhost = ").unwrap_err();
        assert!(toml.contains("line 2"), "{toml}");
        let json = Format::Json.parse("{\n\"instances\": {,").unwrap_err();
        assert!(json.contains("line 2"), "{json}");
    }

    #[test]
    fn what_is_printed_reads_the_same() {
        let full = Instance::new("a-1", "::1", 8080)
            .secure(true)
            .zone("z")
            .weight(0)
            .status(Status::OutOfService)
            .metadata("version", "1.0 \"x\"");
        let entries = [(full, true), (Instance::new("a-2", "h", 80), false)];
        let entries = entries.map(|(instance, registered)| Entry {
            instance,
            registered,
        });
        let services = Services::from([
            ("a".to_owned(), entries.to_vec()),
            ("b.c d".to_owned(), Vec::new()),
        ]);
        for format in [Format::Toml, Format::Json] {
            let text = format.print(&services).unwrap();
            assert_eq!(format.parse(&text), Ok(services.clone()), "{text}");
        }
    }
}
