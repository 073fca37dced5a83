use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tower::{Layer, ServiceExt, service_fn};

use buttress::{BoxError, clock};

use super::config::Config;
use crate::report::{Miss, same};

/// How a call of the service inside ends.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Ended {
    AtOnce(String),
    After(EndedAfter),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndedAfter {
    outcome: String,
    duration_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    calls: Option<usize>,
    delays_ms: Option<Vec<f64>>,
    outcome: Option<String>,
    /// What an error of exhaustion wraps.
    last: Option<String>,
}

/// When each call of the service inside began and ended.
type Spans = Arc<Mutex<Vec<(Instant, Instant)>>>;

pub(super) async fn replay(
    profile: &str,
    config: &Config,
    outcomes: Vec<Ended>,
    expect: &Flow,
) -> Result<(), Miss> {
    let (spans, outcome) = run(profile, config, outcomes.clone()).await;
    let starts = spans.iter().map(|span| span.0).skip(1);
    let ends = spans.iter().map(|span| span.1);
    let waits: Vec<_> = starts.zip(ends).map(|(start, end)| start - end).collect();

    let calls = expect.calls.unwrap_or(spans.len());
    same("the number of calls", spans.len(), calls)?;
    if let Some(wanted) = &expect.delays_ms {
        same("the number of waits", waits.len(), wanted.len())?;
        for (wait, wanted) in waits.iter().zip(wanted) {
            near(*wait, *wanted)?;
        }
    }
    // Who has no attempts left gives what the peer said last, as it is: nothing is wrapped around it.
    let last = outcomes.get(calls - 1).map(Ended::outcome);
    let wanted = match expect.outcome.as_deref() {
        Some("exceeded") => expect.last.as_deref().or(last),
        wanted => wanted,
    };
    same("the outcome", outcome.as_str(), wanted.unwrap_or(&outcome))
}

impl Ended {
    fn outcome(&self) -> &str {
        match self {
            Self::AtOnce(outcome) => outcome,
            Self::After(ended) => &ended.outcome,
        }
    }
}

/// Sends one call through the layer; when the calls inside began and ended, and what the caller got.
pub(super) async fn run(
    profile: &str,
    config: &Config,
    outcomes: Vec<Ended>,
) -> (Vec<(Instant, Instant)>, String) {
    let spans = Spans::default();
    let rules = {
        let config = config.clone();
        move |_: &(), result: Result<&String, &BoxError>| {
            config.decide(&said(result.cloned().map_err(ToString::to_string)))
        }
    };
    let outcomes = Arc::new(Mutex::new(VecDeque::from(outcomes)));
    let seen = spans.clone();
    let peer = service_fn(move |()| {
        let ended = outcomes.lock().unwrap().pop_front();
        let seen = seen.clone();
        async move {
            let start = clock::now();
            let (outcome, millis) = match ended {
                Some(Ended::AtOnce(outcome)) => (outcome, 0),
                Some(Ended::After(ended)) => (ended.outcome, ended.duration_ms),
                None => ("result:no outcome is left".to_owned(), 0),
            };
            clock::sleep(Duration::from_millis(millis)).await;
            seen.lock().unwrap().push((start, clock::now()));
            match outcome.strip_prefix("result:") {
                Some(result) => Ok(result.to_owned()),
                None => Err(BoxError::from(outcome.trim_start_matches("error:"))),
            }
        }
    });
    let layer = config.layer(profile).rules(rules);
    let result = layer.layer(peer).oneshot(()).await;
    let outcome = said(result.map_err(|error| error.to_string()));
    let spans = spans.lock().unwrap().clone();
    (spans, outcome)
}

fn said(result: Result<String, String>) -> String {
    match result {
        Ok(result) => format!("result:{result}"),
        Err(error) => format!("error:{error}"),
    }
}

pub(super) fn near(wait: Duration, wanted_ms: f64) -> Result<(), Miss> {
    let millis = wait.as_secs_f64() * 1e3;
    if (millis - wanted_ms).abs() <= 1.0 {
        return Ok(());
    }
    same("the wait in ms", millis, wanted_ms)
}
