//! What the API server says: EndpointSlices of `discovery.k8s.io/v1`, as far as they are of interest here.

use serde::Deserialize;

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMeta,
    #[serde(default)]
    pub(super) items: Option<Vec<EndpointSlice>>,
}

#[derive(Deserialize)]
pub(super) struct ListMeta {
    #[serde(rename = "resourceVersion")]
    pub(super) version: String,
    /// Where the next page begins, if there is one.
    #[serde(default, rename = "continue")]
    pub(super) next: Option<String>,
}

/// What a watch says.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub(super) enum Event {
    Added(EndpointSlice),
    Modified(EndpointSlice),
    Deleted(EndpointSlice),
    /// Nothing happened up to this version.
    Bookmark(Bookmark),
    Error(Trouble),
}

#[derive(Deserialize)]
pub(super) struct Bookmark {
    pub(super) metadata: ListMeta,
}

/// An error, in an answer of its own or in a watch.
#[derive(Default, Deserialize)]
pub(super) struct Trouble {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: Meta,
    pub(super) address_type: String,
    #[serde(default)]
    pub(super) endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    pub(super) ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
pub(super) struct Meta {
    pub(super) name: String,
    #[serde(rename = "resourceVersion")]
    pub(super) version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) addresses: Option<Vec<String>>,
    #[serde(default)]
    pub(super) conditions: Option<Conditions>,
    #[serde(default)]
    pub(super) target_ref: Option<TargetRef>,
    #[serde(default)]
    pub(super) node_name: Option<String>,
    #[serde(default)]
    pub(super) zone: Option<String>,
    #[serde(default)]
    pub(super) hints: Option<Hints>,
}

#[derive(Default, Deserialize)]
pub(super) struct Conditions {
    #[serde(default)]
    pub(super) ready: Option<bool>,
    #[serde(default)]
    pub(super) serving: Option<bool>,
    #[serde(default)]
    pub(super) terminating: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct TargetRef {
    #[serde(default)]
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hints {
    #[serde(default)]
    pub(super) for_zones: Option<Vec<ForZone>>,
}

#[derive(Deserialize)]
pub(super) struct ForZone {
    pub(super) name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) port: Option<i32>,
    #[serde(default)]
    pub(super) app_protocol: Option<String>,
}

/// A version as a number, so that the later of two can be told; 0 if it is none.
pub(super) fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}
