//! What is said to etcd's JSON gateway and what it says: keys and values in base64, 64-bit numbers as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Value, json};

/// All keys below `folder`, with their values.
pub(super) fn everything(folder: &str) -> Value {
    json!({"key": base64(folder), "range_end": base64(end(folder))})
}

/// The keys below `folder` that are new or different since `revision`, without their values, and how many there are.
pub(super) fn changes(folder: &str, revision: i64) -> Value {
    json!({
        "key": base64(folder),
        "range_end": base64(end(folder)),
        "min_mod_revision": (revision + 1).to_string(),
        "keys_only": true,
    })
}

/// A watch of what happens below `folder` after `revision`.
pub(super) fn watch(folder: &str, revision: i64) -> Value {
    json!({"create_request": {
        "key": base64(folder),
        "range_end": base64(end(folder)),
        "start_revision": (revision + 1).to_string(),
        "progress_notify": true,
        "fragment": true,
    }})
}

pub(super) fn put(key: &str, value: &str, lease: i64) -> Value {
    json!({"key": base64(key), "value": base64(value), "lease": lease.to_string()})
}

pub(super) fn delete(key: &str) -> Value {
    json!({"key": base64(key)})
}

/// If `key` is there with `lease`: does `put`, unless there is nothing to put. If not, says whether it is there at all.
pub(super) fn put_if_held(key: &str, lease: i64, put: Option<Value>) -> Value {
    let key = base64(key);
    let put: Vec<_> = (put.into_iter())
        .map(|put| json!({"request_put": put}))
        .collect();
    json!({
        "compare": [{"key": key, "target": "LEASE", "result": "EQUAL", "lease": lease.to_string()}],
        "success": put,
        "failure": [{"request_range": {"key": key, "count_only": true}}],
    })
}

/// The end of the range of all keys that begin with `folder`, which ends with a slash.
fn end(folder: &str) -> String {
    let stem = folder.strip_suffix('/').unwrap_or(folder);
    // The character after the slash.
    format!("{stem}0")
}

fn base64(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

#[derive(Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<Pair>,
    #[serde(default, deserialize_with = "number")]
    pub(super) count: i64,
}

#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

/// A key and what is known of it. In the event of its deletion there is no more than when that was.
#[derive(Deserialize)]
pub(super) struct Pair {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: i64,
    #[serde(default, deserialize_with = "number")]
    pub(super) lease: i64,
}

impl Pair {
    /// Its revision and lease.
    pub(super) fn stamp(&self) -> (i64, i64) {
        (self.mod_revision, self.lease)
    }
}

/// One line of an answer that is a stream.
#[derive(Deserialize)]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Trouble>,
}

/// An error, in an answer of its own or in a stream. The versions differ in its fields.
#[derive(Default, Deserialize)]
pub(super) struct Trouble {
    #[serde(alias = "grpc_code")]
    pub(super) code: Option<u32>,
    pub(super) message: Option<String>,
}

/// What a watch says.
#[derive(Deserialize)]
pub(super) struct Told {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) created: bool,
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: i64,
    /// Whether more of the same revision follows.
    #[serde(default)]
    pub(super) fragment: bool,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(default, rename = "type")]
    pub(super) kind: Kind,
    pub(super) kv: Pair,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Kind {
    #[default]
    Put,
    Delete,
}

/// A lease that was granted or kept alive.
#[derive(Deserialize)]
pub(super) struct Lease {
    #[serde(rename = "ID", default, deserialize_with = "number")]
    pub(super) id: i64,
    /// Seconds that it has left; none if it is gone.
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(super) ttl: i64,
}

#[derive(Deserialize)]
pub(super) struct Decided {
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

impl Decided {
    /// Whether the key is there, where that was asked.
    pub(super) fn is_there(&self) -> bool {
        let mut ranges = self
            .responses
            .iter()
            .filter_map(|r| r.response_range.as_ref());
        ranges.any(|range| range.count > 0)
    }
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Range>,
}

/// An answer of which only that it came is of interest.
#[derive(Deserialize)]
pub(super) struct Done {}

#[derive(Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

/// A 64-bit number, which is text since JavaScript has none.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Number(i64),
    }
    match Number::deserialize(from)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(D::Error::custom)
}
