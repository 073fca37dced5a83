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
mod report;
mod retry;
mod timeline;
mod vector;

#[test]
fn the_vectors_of_the_repository_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let report = replay(&folder);
    report.print();
    report.assert();
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
    let mut turned = 0;
    for name in ["breaker.json", "bulkhead.json"] {
        let file = file(&folder.join(name));
        for vector in file.vectors {
            let (head, body) = Head::split(vector);
            for step in 0..body["steps"].as_array().unwrap().len() {
                let mut body = body.clone();
                let expect = &mut body["steps"][step]["expect"];
                *expect = match expect.as_str() {
                    Some("permitted") => "rejected".into(),
                    Some("rejected") => "permitted".into(),
                    _ => continue,
                };
                turned += 1;
                let profile = &head.profile;
                let verdict = in_virtual_time(run(&file.format, profile, profile, body));
                assert!(verdict.is_err(), "{}, step {step}", head.id);
            }
        }
    }
    assert!(turned > 250, "{turned}");
}

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

/// On a clock of its own, so that no vector starts where another one left off.
fn in_virtual_time<F: Future>(vector: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(vector)
}

/// One vector of profile `own`, under `profile`.
async fn run(format: &str, own: &str, profile: &str, body: Value) -> Result<(), Miss> {
    match format {
        "breaker/1" => breaker::replay(own, profile, body).await,
        "bulkhead/1" => bulkhead::replay(body).await,
        "retry/1" => retry::replay(body).await,
        "limit/1" => Err(Miss::Absent("no adaptive limit yet")),
        "ratelimit/1" => Err(Miss::Absent("no rate limit yet")),
        other => Err(Miss::Unsupported(format!("the format `{other}`"))),
    }
}
