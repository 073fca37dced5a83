//! What is shown, in words.

use std::time::Duration;

use buttress::Instance;
use buttress::clock;
use buttress::discovery::{Freshness, Status};

use super::view::{Row, Verdict, View};

/// How far the list can be trusted, in a word.
pub(super) fn freshness(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Bootstrap => "unanswered",
        Freshness::Fresh => "fresh",
        Freshness::Stale { .. } => "stale",
        Freshness::Expired { .. } => "expired",
        Freshness::Empty { .. } => "empty",
        _ => "unknown",
    }
}

/// How long ago the list was confirmed, where that is long ago.
pub(super) fn age(freshness: Freshness) -> Option<Duration> {
    match freshness {
        Freshness::Stale { age } | Freshness::Expired { age } => Some(age),
        _ => None,
    }
}

/// The service as a whole, in a line.
pub(super) fn summary(view: &View) -> String {
    let age = age(view.freshness).map(|age| format!(" since {}", span(age)));
    format!(
        "version {}, {}{}: {} called, {} held, {} not called",
        view.version,
        freshness(view.freshness),
        age.unwrap_or_default(),
        view.count(Verdict::Called),
        view.count(Verdict::Held),
        view.count(Verdict::NotCalled),
    )
}

/// What is wrong with the service as a whole, a line each.
pub(super) fn troubles(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failure) = &view.failure {
        let retry = match failure.retry_in {
            Some(wait) => format!("asked again in {}", span(wait)),
            None => "it goes on trying".to_owned(),
        };
        let age = span(failure.age);
        let (registry, error) = (&view.registry, &failure.error);
        lines.push(message(&format!(
            "{registry}: {error} (failing for {age}, {retry})"
        )));
    }
    let is_callable = |row: &Row| row.verdict != Verdict::NotCalled;
    if view.rows.iter().any(is_callable) {
        return lines;
    }
    let registry = &view.registry;
    let why = match view.freshness {
        Freshness::Bootstrap if view.failure.is_some() => return lines,
        Freshness::Bootstrap => "has not answered yet".to_owned(),
        _ if view.rows.is_empty() => {
            format!(
                "names no instance of `{}`: nobody is registered under that name",
                view.service
            )
        }
        _ => format!("names {} of them, none of which is up", view.rows.len()),
    };
    lines.push(clean(&format!("{registry} {why}")));
    lines
}

/// Whether the instance is called, and why.
pub(super) fn why(view: &View, row: &Row) -> String {
    let mut text = match (row.verdict, row.status) {
        (Verdict::Called, _) if row.instance.weight == 0 => {
            "called only if nobody else is left: its weight is 0".to_owned()
        }
        (Verdict::Called, _) => "called".to_owned(),
        (Verdict::Held, named) => {
            let what = match named {
                Some(_) => "says that it is down",
                None => "no longer names it",
            };
            let since = row.changed.map(|seen| {
                let age = clock::now().saturating_duration_since(seen.at);
                format!(" since {}", span(age))
            });
            format!(
                "held by the guard: the registry {what}{}; still called, until that is certain",
                since.unwrap_or_default()
            )
        }
        (Verdict::NotCalled, Some(Status::Down)) => {
            "not called: its health check does not pass".to_owned()
        }
        (Verdict::NotCalled, Some(Status::OutOfService)) => {
            "not called: out of service, taken out by its operator or about to stop".to_owned()
        }
        (Verdict::NotCalled, Some(Status::Starting)) => {
            "not called: registered, but not yet ready".to_owned()
        }
        (Verdict::NotCalled, _) => match view.freshness {
            Freshness::Expired { .. } => {
                "not called: the registry has failed for longer than --max-stale".to_owned()
            }
            _ => "not called yet: just heard of".to_owned(),
        },
    };
    if let (true, Some(zone)) = (row.is_elsewhere, &view.zone) {
        let other = row.instance.zone.as_deref();
        text += &match other {
            Some(other) => format!("; in zone {other}, not {zone}"),
            None => format!("; not known to be in zone {zone}"),
        };
    }
    clean(&text)
}

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Called => "called",
        Verdict::Held => "held",
        Verdict::NotCalled => "not called",
    }
}

/// What the registry says of an instance, in a word.
pub(super) fn status(status: Option<Status>) -> &'static str {
    match status {
        Some(Status::Up) => "up",
        Some(Status::Starting) => "starting",
        Some(Status::OutOfService) => "out_of_service",
        Some(Status::Down) => "down",
        Some(_) => "unknown",
        None => "gone",
    }
}

/// Where to reach an instance.
pub(super) fn address(instance: &Instance) -> String {
    let tls = if instance.secure { " (TLS)" } else { "" };
    clean(&format!("{instance}{tls}"))
}

/// A time as people say it.
pub(super) fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// `text`, which may come from anywhere, without what a terminal obeys.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => clean.extend(char.escape_default()),
            false => clean.push(char),
        }
    }
    clean
}

/// A message, which may have several lines, without what a terminal obeys.
pub(super) fn message(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(clean).collect();
    lines.join("\n")
}
