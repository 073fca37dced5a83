use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use buttress::clock;
use buttress::discovery::{Freshness, Instance, Snapshot, Status};

use super::said::Said;

/// A service at a moment: what a client sees, and what it does not.
pub(super) struct View {
    pub(super) at: SystemTime,
    pub(super) registry: Arc<str>,
    pub(super) service: String,
    pub(super) version: u64,
    pub(super) freshness: Freshness,
    pub(super) failure: Option<Failing>,
    /// The zone of the caller.
    pub(super) zone: Option<String>,
    /// Those that are called come first.
    pub(super) rows: Vec<Row>,
}

pub(super) struct Failing {
    pub(super) error: String,
    pub(super) age: Duration,
    pub(super) retry_in: Option<Duration>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) instance: Instance,
    /// What the registry says of it; nothing if it names it no longer.
    pub(super) status: Option<Status>,
    pub(super) verdict: Verdict,
    /// Whether it is known to be in another zone than the caller.
    pub(super) is_elsewhere: bool,
    /// When it became what it is, if that was seen.
    pub(super) changed: Option<Seen>,
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
}

/// Whether a client calls an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Called,
    /// The registry no longer names it, or names it as down, and the guard doubts that.
    Held,
    NotCalled,
}

impl View {
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        let rows = self.rows.iter();
        rows.filter(|row| row.verdict == verdict).count()
    }
}

impl Row {
    /// Whether it is the same but for when it became so.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.instance, self.status, self.verdict)
            == (&other.instance, other.status, other.verdict)
    }
}

/// What was seen before, to say when something changed.
pub(super) struct History {
    zone: Option<String>,
    rows: Option<BTreeMap<String, Row>>,
}

impl History {
    pub(super) fn new(zone: Option<String>) -> Self {
        Self { zone, rows: None }
    }

    /// What is to be seen now.
    pub(super) fn view(&mut self, snapshot: &Snapshot, freshness: Freshness, said: Said) -> View {
        let now = Seen {
            at: clock::now(),
            wall: clock::wall(),
        };
        let mut rows = rows(snapshot, said.named.as_deref().unwrap_or_default());
        for row in &mut rows {
            row.is_elsewhere = self.zone.is_some() && row.instance.zone != self.zone;
            row.changed = match self.rows.as_ref().map(|rows| rows.get(&row.instance.id)) {
                Some(Some(before)) if before.is_like(row) => before.changed,
                Some(_) => Some(now),
                // They were there before anybody looked.
                None => None,
            };
        }
        if said.named.is_some() {
            let by_id = rows
                .iter()
                .map(|row| (row.instance.id.clone(), row.clone()));
            self.rows = Some(by_id.collect());
        }
        View {
            at: now.wall,
            registry: said.registry,
            service: snapshot.service().to_owned(),
            version: snapshot.version(),
            freshness,
            failure: said.failure.map(|failure| Failing {
                error: failure.error,
                age: now.at.saturating_duration_since(failure.since),
                retry_in: failure
                    .retry_at
                    .map(|at| at.saturating_duration_since(now.at)),
            }),
            zone: self.zone.clone(),
            rows,
        }
    }
}

/// Those of the snapshot, then those that are only named.
fn rows(snapshot: &Snapshot, named: &[Instance]) -> Vec<Row> {
    let mut rest: BTreeMap<&str, &Instance> = BTreeMap::new();
    for instance in named {
        rest.entry(&instance.id).or_insert(instance);
    }
    let mut rows = Vec::new();
    let live = snapshot.live().iter().map(|it| (it, Verdict::Called));
    let held = snapshot.held().iter().map(|it| (it, Verdict::Held));
    for (instance, verdict) in live.chain(held) {
        let named = rest.remove(instance.id.as_str());
        let status = match verdict {
            Verdict::Held => named.map(|named| named.status),
            _ => Some(instance.status),
        };
        rows.push(Row::new(Instance::clone(instance), status, verdict));
    }
    let unseen = rest.into_values().cloned();
    rows.extend(unseen.map(|instance| {
        let status = Some(instance.status);
        Row::new(instance, status, Verdict::NotCalled)
    }));
    rows
}

impl Row {
    fn new(instance: Instance, status: Option<Status>, verdict: Verdict) -> Self {
        Self {
            instance,
            status,
            verdict,
            is_elsewhere: false,
            changed: None,
        }
    }
}
