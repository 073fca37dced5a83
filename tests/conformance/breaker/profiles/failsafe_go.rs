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
    failure_threshold: u32,
    failure_capacity: Option<u32>,
    failure_period_ms: Option<u64>,
    success_threshold: Option<u32>,
    success_capacity: Option<u32>,
    wait_open_ms: u64,
}

pub(crate) fn plan(config: Value) -> Result<Plan, Miss> {
    let config: FailsafeGo = read(config)?;
    let failures = config.failure_threshold;
    let capacity = config.failure_capacity.unwrap_or(failures);
    let settings = plain()
        // The count decides: the rate says the same once all calls of a full window have failed.
        .failure_rate(1.0)
        .minimum_calls(u32::MAX)
        .failure_count(failures)
        .open_wait(ms(config.wait_open_ms).max(TICK))
        .replace_probes(true);
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
    let settings = settings
        .half_open_calls(calls)
        .half_open_successes(successes);
    Ok(Plan {
        unhandled: Outcome::Success,
        no_wait: config.wait_open_ms == 0,
        ..settings.into()
    })
}
