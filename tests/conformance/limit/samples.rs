use std::time::Duration;

use serde::Deserialize;

use buttress::algo::limit::{Limit, Sample};
use buttress::clock;

use super::algorithm::{Any, Config, millis};
use crate::report::{Miss, same};

/// A call that ended, or a look.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    op: Op,
    /// When it began, …
    start_ms: Option<f64>,
    /// … or when it ended.
    at_ms: Option<f64>,
    rtt_ms: Option<f64>,
    inflight: Option<usize>,
    #[serde(default)]
    dropped: bool,
    limit: Option<f64>,
    estimate: Option<f64>,
    max_limit: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Sample,
    Success,
    Drop,
    MaxLimit,
    Query,
}

pub(super) fn replay(config: Config, steps: Vec<Step>) -> Result<(), Miss> {
    let mut limit = config.build()?;
    // A call may have begun before the first moment that a vector names.
    let origin = clock::now() + Duration::from_secs(3600);
    for (i, step) in steps.iter().enumerate() {
        let at = |miss: Miss| miss.at(format_args!("step {i} ({:?})", step.op));
        let rtt = millis(step.rtt_ms.unwrap_or_default());
        let end = match (step.start_ms, step.at_ms) {
            (Some(start), _) => origin + millis(start) + rtt,
            (None, end) => origin + millis(end.unwrap_or_default()),
        };
        let in_flight = step.inflight.unwrap_or_default();
        if let Op::Sample | Op::Success | Op::Drop = step.op {
            let sample = Sample {
                start: end - rtt,
                rtt,
                in_flight,
                dropped: step.dropped || step.op == Op::Drop,
            };
            limit.on_sample(sample, end);
        }
        check(step, &limit, in_flight).map_err(at)?;
    }
    Ok(())
}

fn check(step: &Step, limit: &Any, in_flight: usize) -> Result<(), Miss> {
    if step.op == Op::MaxLimit {
        let most = limit.max_limit(in_flight);
        return near("the most", most, step.max_limit.or(step.limit));
    }
    if let Some(wanted) = step.limit {
        same("the limit", limit.limit(), wanted as usize)?;
    }
    match limit.estimate() {
        None => Ok(()),
        estimate => near("the estimate", estimate, step.estimate),
    }
}

pub(super) fn near(what: &str, got: Option<f64>, wanted: Option<f64>) -> Result<(), Miss> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    match got {
        Some(got) if (got - wanted).abs() <= 0.01 => Ok(()),
        got => Err(Miss::Failed(format!(
            "{what} is {got:?} instead of {wanted}"
        ))),
    }
}
