//! What each profile's configuration means, knob for knob.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use buttress::algo::breaker::Cancelled;

use super::Name;
use super::settings::{Plan, Rule, Unhandled, plain};
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

pub(super) fn resilience4j(config: Value) -> Result<Plan, Miss> {
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
        Some(Name::Closed) => settings.close_at_limit(true),
        Some(other) => return Err(Miss::Unsupported(format!("{other:?} after the limit"))),
    };
    Ok(Plan {
        record_errors: config.record_errors,
        ignore_errors: config.ignore_errors,
        record_results: config.record_results,
        initial_state: config.initial_state,
        auto_half_open: config.auto_half_open,
        wait: ends,
        rate_from_minimum: true,
        ..settings.into()
    })
}

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

pub(super) fn failsafe_go(config: Value) -> Result<Plan, Miss> {
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
        unhandled: Unhandled::Succeeds,
        no_wait: config.wait_open_ms == 0,
        ..settings.into()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Polly {
    failure_ratio: Option<f64>,
    min_throughput: Option<u32>,
    sampling_ms: Option<u64>,
    consecutive_failures: Option<u32>,
    break_ms: Option<u64>,
    #[serde(default)]
    break_sequence_ms: Vec<u64>,
    initial_state: Option<Name>,
}

pub(super) fn polly(profile: &str, config: Value) -> Result<Plan, Miss> {
    let config: Polly = read(config)?;
    let first = config.break_sequence_ms.first().copied();
    let wait = ms(first.or(config.break_ms).unwrap_or(5_000));
    let settings = plain()
        .open_wait(wait)
        .half_open_calls(1)
        .open_on_success(false);
    let settings = match config.consecutive_failures {
        Some(failures) => settings
            .consecutive_failures(failures)
            .minimum_calls(u32::MAX),
        None => settings
            .failure_rate(config.failure_ratio.unwrap_or(0.1))
            .minimum_calls(config.min_throughput.unwrap_or(100))
            .time_window(ms(config.sampling_ms.unwrap_or(30_000))),
    };
    let old = profile == "polly-v7";
    Ok(Plan {
        initial_state: config.initial_state,
        unhandled: match old {
            true => Unhandled::IsIgnored,
            false => Unhandled::Succeeds,
        },
        break_sequence: config.break_sequence_ms.into_iter().map(ms).collect(),
        probe_every: old.then_some(wait),
        ..settings.into()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hystrix {
    error_percent: f64,
    min_calls: u32,
    window_ms: u64,
    sleep_window_ms: u64,
    /// How often it judges. It is judged at once here, and the vectors are made so that both agree.
    #[serde(rename = "snapshot_ms")]
    _snapshot_ms: Option<u64>,
}

pub(super) fn hystrix(config: Value) -> Result<Plan, Miss> {
    let config: Hystrix = read(config)?;
    let settings = plain()
        .failure_rate(config.error_percent / 100.0)
        .minimum_calls(config.min_calls)
        .time_window(ms(config.window_ms))
        .open_wait(after(config.sleep_window_ms))
        .half_open_calls(1)
        .cancelled(Cancelled::Failure);
    Ok(Plan {
        cancel_reopens: true,
        wait: after,
        ..settings.into()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sentinel {
    rules: Vec<SentinelRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentinelRule {
    strategy: Strategy,
    max_rt_ms: Option<u64>,
    slow_ratio: Option<f64>,
    threshold: Option<f64>,
    min_calls: u32,
    stat_interval_ms: u64,
    wait_open_ms: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    SlowRatio,
    ErrorRatio,
    ErrorCount,
}

pub(super) fn sentinel(config: Value) -> Result<Plan, Miss> {
    let config: Sentinel = read(config)?;
    let rules: Result<Vec<_>, _> = config.rules.into_iter().map(sentinel_rule).collect();
    Ok(Plan {
        rules: rules?,
        ..plain().into()
    })
}

fn sentinel_rule(rule: SentinelRule) -> Result<Rule, Miss> {
    let lacks = |what: &str| Miss::Unsupported(format!("a rule without `{what}`"));
    let settings = plain()
        .minimum_calls(rule.min_calls)
        .time_window(ms(rule.stat_interval_ms))
        .open_wait(ms(rule.wait_open_ms))
        .half_open_calls(1);
    let threshold = rule.threshold.ok_or_else(|| lacks("threshold"));
    let settings = match rule.strategy {
        Strategy::SlowRatio => {
            let longest = ms(rule.max_rt_ms.ok_or_else(|| lacks("max_rt_ms"))?);
            let ratio = rule.slow_ratio.ok_or_else(|| lacks("slow_ratio"))?;
            settings.slow_calls(longest, above(ratio).min(1.0))
        }
        Strategy::ErrorRatio => settings.failure_rate(above(threshold?)),
        Strategy::ErrorCount => {
            let count = threshold? as u32 + 1;
            if count < rule.min_calls {
                let why = "a count of failures that waits for a minimum of calls";
                return Err(Miss::Unsupported(why.into()));
            }
            settings.minimum_calls(u32::MAX).failure_count(count)
        }
    };
    Ok(Rule {
        settings,
        slow_calls_alone: matches!(rule.strategy, Strategy::SlowRatio),
    })
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A wait that is over only past its deadline, not at it.
fn after(millis: u64) -> Duration {
    ms(millis) + TICK
}

/// The smallest number above `ratio`: to reach it is to exceed `ratio`.
fn above(ratio: f64) -> f64 {
    f64::from_bits(ratio.to_bits() + 1)
}

/// The shortest time there is.
pub(super) const TICK: Duration = Duration::from_nanos(1);
