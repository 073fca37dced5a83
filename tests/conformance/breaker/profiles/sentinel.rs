use serde::Deserialize;
use serde_json::Value;

use super::ms;
use crate::breaker::settings::{Plan, Rule, plain};
use crate::report::Miss;
use crate::vector::read;

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

pub(crate) fn plan(config: Value) -> Result<Plan, Miss> {
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
        Strategy::ErrorRatio => match above(threshold?) {
            // No rate is above 1.
            out_of_reach if out_of_reach > 1.0 => settings.minimum_calls(u32::MAX),
            ratio => settings.failure_rate(ratio),
        },
        Strategy::ErrorCount => {
            let count = threshold? as u32 + 1;
            settings
                .minimum_calls(u32::MAX)
                .failure_count(count)
                .failure_count_calls(rule.min_calls)
        }
    };
    Ok(Rule {
        settings,
        slow_calls_alone: matches!(rule.strategy, Strategy::SlowRatio),
    })
}

/// The smallest number above `ratio`: to reach it is to exceed `ratio`.
fn above(ratio: f64) -> f64 {
    f64::from_bits(ratio.to_bits() + 1)
}
