//! Replays vectors of other libraries' semantics (`tests/vectors`) through the handles and layers, in virtual time.
//!
//! Another folder of such files is replayed as well if the environment variable `BUTTRESS_VECTORS` names one. What
//! passed, failed and is not supported is told past the test harness, a line for each file and profile.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::fs;
use std::path::Path;

use serde_json::Value;

use report::{Miss, Report};
use vector::{File, Head};

mod breaker;
mod bulkhead;
mod limit;
mod ratelimit;
mod report;
mod retry;
mod timeline;
mod vector;

#[test]
fn the_vectors_of_the_repository_hold() {
    let report = replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"));
    report.print();
    report.assert();
}

#[test]
fn the_vectors_that_were_written_here_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/more");
    let report = replay(&folder);
    report.print();
    report.assert();
    report.assert_all_supported();
}

#[test]
fn the_vectors_of_the_folder_that_is_named_hold() {
    let Some(folder) = std::env::var_os("BUTTRESS_VECTORS") else {
        return;
    };
    let report = replay(Path::new(&folder));
    report.print();
    report.assert();
}

/// A replay that compares nothing would pass everything.
#[test]
fn an_expectation_that_is_turned_round_is_noticed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut count = 0;
    for name in [
        "breaker.json",
        "more/breaker.json",
        "bulkhead.json",
        "limit.json",
        "ratelimit.json",
        "more/bulkhead.json",
        "more/limit.json",
        "more/ratelimit.json",
    ] {
        let file = file(&folder.join(name));
        for vector in file.vectors {
            let (head, body) = Head::split(vector);
            for step in 0..body["steps"].as_array().unwrap().len() {
                for field in TURNED {
                    let mut body = body.clone();
                    if !turn(&mut body["steps"][step], field) {
                        continue;
                    }
                    count += 1;
                    let profile = &head.profile;
                    let verdict = in_virtual_time(run(&file.format, profile, profile, body));
                    assert!(verdict.is_err(), "{}, {field} of step {step}", head.id);
                }
            }
        }
    }
    assert!(count > 500, "{count}");
}

/// Expects something else; false if nothing was expected there.
fn turn(step: &mut Value, field: &str) -> bool {
    // There it is what is set.
    if step["op"] == "set_limit" {
        return false;
    }
    let Some(expected) = step.get_mut(field) else {
        return false;
    };
    *expected = match (expected.as_str(), expected.as_f64()) {
        (Some("permitted"), _) => "rejected".into(),
        (Some("rejected"), _) => "permitted".into(),
        (Some("closed"), _) => "open".into(),
        (Some("open" | "half_open" | "forced_open" | "disabled" | "metrics_only"), _) => {
            "closed".into()
        }
        (_, Some(number)) if expected.is_f64() => (number + 2.0).into(),
        (_, Some(number)) => (number as i64 + 2).into(),
        _ => return false,
    };
    true
}

const TURNED: [&str; 21] = [
    "expect",
    "available",
    "limit",
    "result",
    "y",
    "rate",
    "tracked_rtt",
    "estimate",
    "max_limit",
    "wait_ms",
    "retry_after_ms",
    "state",
    "failure_rate",
    "slow_rate",
    "buffered",
    "failed",
    "success",
    "slow",
    "slow_success",
    "not_permitted",
    "remaining_open_ms",
];

fn replay(folder: &Path) -> Report {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no vectors in {}", folder.display());

    let mut report = Report::default();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let file = file(&path);
        for vector in file.vectors {
            let (head, body) = Head::split(vector);
            for profile in head.profiles() {
                let vector = run(&file.format, &head.profile, profile, body.clone());
                let verdict = in_virtual_time(vector);
                report.add(name, profile, &head, verdict);
            }
        }
    }
    report
}

fn file(path: &Path) -> File {
    serde_json::from_slice(&fs::read(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// On a clock of its own, so that no vector starts where another one left off, and without tokio's budget, so that a
/// vector of many steps at one moment is not made to wait.
fn in_virtual_time<F: Future>(vector: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(tokio::task::unconstrained(vector))
}

/// One vector of profile `own`, under `profile`.
async fn run(format: &str, own: &str, profile: &str, body: Value) -> Result<(), Miss> {
    match format {
        "breaker/1" => breaker::replay(own, profile, body).await,
        "bulkhead/1" => bulkhead::replay(body).await,
        "retry/1" => retry::replay(profile, body).await,
        "limit/1" => limit::replay(body),
        "ratelimit/1" => ratelimit::replay(body).await,
        other => Err(Miss::Unsupported(format!("the format `{other}`"))),
    }
}
