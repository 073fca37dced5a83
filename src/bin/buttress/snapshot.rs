//! What is in a snapshot file, for whoever wants to know what a client starts with.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buttress::Instance;
use buttress::clock;
use buttress::discovery::{Inspected, Kept};
use serde::Serialize;

use super::draw::columns;
use super::{EMPTY, Failure, json, output, text};

/// Shows the file at `path`. The exit code says whether it names an instance.
pub(super) fn run(path: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let file = Inspected::read(path);
    let file = file.map_err(|why| Failure::Told(format!("{}: {why}", path.display())))?;
    output::write(&match as_json {
        true => vec![line(path, &file)],
        false => lines(path, &file),
    })?;
    Ok(match instances(&file) {
        0 => ExitCode::from(EMPTY),
        _ => ExitCode::SUCCESS,
    })
}

/// For people: the file, then a table for each service.
fn lines(path: &Path, file: &Inspected) -> Vec<String> {
    let owner = match &*file.owner {
        "" => "nobody's".to_owned(),
        owner => format!("of `{owner}`"),
    };
    let written = file.written.map_or_else(
        || "at a time that is not known".to_owned(),
        |at| moment(at, clock::wall().duration_since(at).unwrap_or_default()),
    );
    let (version, services) = (file.version, file.services.len());
    let mut lines = vec![
        text::clean(&format!("{}, {owner}", path.display())),
        format!(
            "version {version}, written {written}: {services} services, {} instances",
            instances(file)
        ),
    ];
    let doubt = file.doubt.iter();
    lines.extend(doubt.map(|why| format!("! a client would not use it: {why}")));
    for kept in &file.services {
        lines.push(String::new());
        lines.push(text::clean(&format!(
            "{}: {} instances, confirmed {} by registry {} of the chain",
            kept.service,
            kept.instances.len(),
            confirmed(kept).map_or_else(
                || "at a time that cannot be".to_owned(),
                |at| moment(at, kept.age)
            ),
            kept.position.saturating_add(1),
        )));
        if kept.is_old {
            lines.push("! a client would not use it: it is older than three days, unless `SnapshotFile::max_age` says otherwise".to_owned());
        }
        let head = ["ID", "ADDRESS", "ZONE", "WEIGHT", "STATUS"].map(str::to_owned);
        let rows = kept.instances.iter().map(|instance| cells(instance));
        let table: Vec<_> = std::iter::once(head).chain(rows).collect();
        let table = columns(&table, 5);
        lines.extend(table.iter().map(|line| format!("  {}", line.trim_end())));
    }
    lines
}

fn cells(instance: &Instance) -> [String; 5] {
    [
        text::clean(&instance.id),
        text::address(instance),
        text::clean(instance.zone.as_deref().unwrap_or("-")),
        instance.weight.to_string(),
        text::status(Some(instance.status)).to_owned(),
    ]
}

/// When, and how long ago.
fn moment(at: SystemTime, age: Duration) -> String {
    format!("{}, {} ago", time(at), text::span(age))
}

/// As RFC 3339 has it, which ends with the year 9999 and here begins in 1970.
fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    json::time(UNIX_EPOCH + since.min(LAST))
}

/// When a registry last named these, if there is such a time.
fn confirmed(kept: &Kept) -> Option<SystemTime> {
    let since = Duration::from_secs(kept.confirmed);
    (since <= LAST).then(|| UNIX_EPOCH + since)
}

fn instances(file: &Inspected) -> usize {
    let all = file.services.iter();
    all.map(|kept| kept.instances.len()).sum()
}

/// For machines, in a line.
fn line(path: &Path, file: &Inspected) -> String {
    let now = clock::wall();
    let shown = Shown {
        time: time(now),
        file: path.display().to_string(),
        version: file.version,
        owner: &file.owner,
        written: file.written.map(time),
        refused: file.doubt.as_deref(),
        services: file.services.iter().map(Service::new).collect(),
    };
    // Texts and numbers: this cannot fail.
    serde_json::to_string(&shown).unwrap_or_default()
}

#[derive(Serialize)]
struct Shown<'a> {
    time: String,
    file: String,
    version: &'a str,
    owner: &'a str,
    written: Option<String>,
    refused: Option<&'a str>,
    services: Vec<Service<'a>>,
}

#[derive(Serialize)]
struct Service<'a> {
    service: &'a str,
    confirmed: Option<String>,
    age_seconds: u64,
    too_old: bool,
    registry: usize,
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
    metadata: &'a BTreeMap<String, String>,
}

impl<'a> Service<'a> {
    fn new(kept: &'a Kept) -> Self {
        Self {
            service: &kept.service,
            confirmed: confirmed(kept).map(time),
            age_seconds: kept.age.as_secs(),
            too_old: kept.is_old,
            registry: kept.position.saturating_add(1),
            instances: kept.instances.iter().map(|it| One::new(it)).collect(),
        }
    }
}

impl<'a> One<'a> {
    fn new(instance: &'a Instance) -> Self {
        Self {
            id: &instance.id,
            host: &instance.host,
            port: instance.port,
            secure: instance.secure,
            zone: instance.zone.as_deref(),
            weight: instance.weight,
            status: text::status(Some(instance.status)),
            metadata: &instance.metadata,
        }
    }
}

/// The last second of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);
