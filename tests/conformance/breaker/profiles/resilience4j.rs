use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use buttress::algo::breaker::AtLimit;

use super::{after, ms};
use crate::breaker::Name;
use crate::breaker::settings::{Plan, plain};
use crate::report::Miss;
use crate::vector::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resilience4j {
    failure_rate_threshold: f64,
    slow_call_rate_threshold: f64,
    slow_call_duration_ms: u64,
    window: Window,
    min_calls: u32,
    permitted_half_open: u32,
    #[serde(default)]
    max_wait_half_open_ms: u64,
    after_max_wait_half_open: Option<Name>,
    wait_open_ms: Option<u64>,
    open_backoff: Option<OpenBackoff>,
    #[serde(default)]
    auto_half_open: bool,
    record_errors: Option<Vec<String>>,
    #[serde(default)]
    ignore_errors: Vec<String>,
    #[serde(default)]
    record_results: Vec<String>,
    initial_state: Option<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
enum Window {
    Count { size: u32 },
    Time { size_ms: u64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenBackoff {
    initial_ms: u64,
    multiplier: f64,
    max_ms: Option<u64>,
}

pub(crate) fn plan(config: Value) -> Result<Plan, Miss> {
    let config: Resilience4j = read(config)?;
    // A timer ends the wait at its deadline, a call only after it.
    let ends: fn(u64) -> Duration = if config.auto_half_open { ms } else { after };
    let mut settings = plain()
        .failure_rate(config.failure_rate_threshold / 100.0)
        .slow_calls(
            ms(config.slow_call_duration_ms),
            config.slow_call_rate_threshold / 100.0,
        )
        .minimum_calls(config.min_calls)
        .half_open_calls(config.permitted_half_open)
        .await_all_probes(true);
    settings = match config.window {
        Window::Count { size } => settings.count_window(size),
        Window::Time { size_ms } => settings.time_window(ms(size_ms)),
    };
    settings = match (config.open_backoff, config.wait_open_ms) {
        (Some(backoff), _) => settings
            .open_wait(ends(backoff.initial_ms))
            .open_multiplier(backoff.multiplier)
            .open_max(backoff.max_ms.map_or(Duration::MAX, ends)),
        (None, Some(wait)) => settings.open_wait(ends(wait)),
        (None, None) => settings.open_wait(ends(60_000)),
    };
    if config.max_wait_half_open_ms > 0 {
        settings = settings.half_open_limit(ms(config.max_wait_half_open_ms));
    }
    settings = match config.after_max_wait_half_open {
        None | Some(Name::Open) => settings,
        Some(Name::Closed) => settings.at_limit(AtLimit::Close),
        Some(other) => return Err(Miss::Unsupported(format!("{other:?} after the limit"))),
    };
    Ok(Plan {
        record_errors: config.record_errors,
        ignore_errors: config.ignore_errors,
        record_results: config.record_results,
        initial_state: config.initial_state,
        auto_half_open: config.auto_half_open,
        wait: ends,
        checks_steps: true,
        rate_from_minimum: true,
        ..settings.into()
    })
}
