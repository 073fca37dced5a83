use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::text;
use super::view::{Row, View};

/// A view for machines, as a line of JSON. A time is as RFC 3339 has it, an age in seconds.
pub(super) fn line(view: &View) -> String {
    let failure = view.failure.as_ref();
    let shown = Shown {
        time: time(view.at),
        registry: &view.registry,
        service: &view.service,
        version: view.version,
        freshness: text::freshness(view.freshness),
        age_seconds: text::age(view.freshness).map(|age| age.as_secs()),
        error: failure.map(|failure| &*failure.error),
        retry_in_seconds: failure
            .and_then(|failure| failure.retry_in)
            .map(|wait| wait.as_secs()),
        instances: view.rows.iter().map(|row| one(view, row)).collect(),
    };
    // Texts and numbers: this cannot fail.
    serde_json::to_string(&shown).unwrap_or_default()
}

#[derive(Serialize)]
struct Shown<'a> {
    time: String,
    registry: &'a str,
    service: &'a str,
    version: u64,
    freshness: &'static str,
    age_seconds: Option<u64>,
    error: Option<&'a str>,
    retry_in_seconds: Option<u64>,
    instances: Vec<One<'a>>,
}

#[derive(Serialize)]
struct One<'a> {
    id: &'a str,
    host: &'a str,
    port: u16,
    secure: bool,
    zone: Option<&'a str>,
    weight: u32,
    status: &'static str,
    verdict: &'static str,
    why: String,
    changed: Option<String>,
    metadata: &'a BTreeMap<String, String>,
}

fn one<'a>(view: &View, row: &'a Row) -> One<'a> {
    let instance = &row.instance;
    One {
        id: &instance.id,
        host: &instance.host,
        port: instance.port,
        secure: instance.secure,
        zone: instance.zone.as_deref(),
        weight: instance.weight,
        status: text::status(row.status),
        verdict: text::verdict(row.verdict),
        why: text::why(view, row),
        changed: row.changed.map(|seen| time(seen.wall)),
        metadata: &instance.metadata,
    }
}

pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
