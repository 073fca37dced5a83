use serde::Deserialize;
use serde_json::Value;

use buttress::Outcome;

use super::{TICK, ms};
use crate::breaker::settings::{Plan, plain};
use crate::report::Miss;
use crate::vector::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailsafeGo {
    failure_threshold: Option<u32>,
    failure_capacity: Option<u32>,
    failure_period_ms: Option<u64>,
    /// In percent; counts from the execution threshold on.
    failure_rate_threshold: Option<f64>,
    failure_execution_threshold: Option<u32>,
    success_threshold: Option<u32>,
    success_capacity: Option<u32>,
    wait_open_ms: u64,
}

pub(crate) fn plan(config: Value) -> Result<Plan, Miss> {
    let config: FailsafeGo = read(config)?;
    let failures = config.failure_threshold.unwrap_or(1);
    let capacity = config.failure_capacity.unwrap_or(failures);
    let settings = plain()
        .open_wait(ms(config.wait_open_ms).max(TICK))
        .replace_probes(true);
    let executions = config.failure_execution_threshold.unwrap_or(1);
    let settings = match config.failure_rate_threshold {
        Some(percent) => settings
            .failure_rate(percent / 100.0)
            .minimum_calls(executions)
            .half_open_calls(executions),
        // The count decides: the rate says the same once all calls of a full window have failed.
        None => settings
            .failure_rate(1.0)
            .minimum_calls(u32::MAX)
            .failure_count(failures)
            .failure_count_calls(executions),
    };
    let settings = match config.failure_period_ms {
        Some(period) => settings.time_window(ms(period)),
        None => settings.count_window(capacity),
    };
    // Without rules of its own, half-open closes once the failures that would open it cannot come together any more.
    let (calls, successes) = match (config.success_threshold, config.success_capacity) {
        (Some(successes), Some(calls)) => (calls, successes),
        (Some(successes), None) => (successes, successes),
        (None, _) => (capacity, capacity + 1 - failures),
    };
    let by_rate = config.failure_rate_threshold.is_some() && config.success_threshold.is_none();
    let settings = match by_rate {
        true => settings,
        false => settings
            .half_open_calls(calls)
            .half_open_successes(successes),
    };
    Ok(Plan {
        unhandled: Outcome::Success,
        no_wait: config.wait_open_ms == 0,
        ..settings.into()
    })
}
