use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::report::Miss;

/// A file of vectors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) format: String,
    pub(crate) vectors: Vec<Value>,
}

/// What the vectors of all formats begin with.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) profile: String,
    #[serde(default)]
    also: Vec<String>,
    pub(crate) level: Level,
    pub(crate) note: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Core,
    Edge,
    Quirk,
}

impl Head {
    /// The head, and the fields that are the format's own.
    pub(crate) fn split(mut vector: Value) -> (Self, Value) {
        let head: Self = Self::deserialize(&vector)
            .unwrap_or_else(|error| panic!("{error} in the head of {vector}"));
        let fields = vector.as_object_mut().unwrap();
        fields.retain(|field, _| !HEAD.contains(&field.as_str()));
        (head, vector)
    }

    /// The profiles under which the vector holds.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &str> {
        let also = self.also.iter().map(String::as_str);
        std::iter::once(self.profile.as_str()).chain(also)
    }
}

/// Reads a part of a vector; what it does not know is named as not supported.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Miss> {
    serde_json::from_value(value).map_err(|error| Miss::Unsupported(error.to_string()))
}

/// For a field that may be absent (nothing is expected) or null (nothing is there).
pub(crate) fn present<'de, T, D>(value: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(value).map(Some)
}

const HEAD: [&str; 9] = [
    "id", "source", "profile", "also", "level", "origin", "verified", "title", "note",
];
