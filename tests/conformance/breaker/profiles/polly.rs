use serde::Deserialize;
use serde_json::Value;

use buttress::Outcome;
use buttress::algo::breaker::AtLimit;

use super::ms;
use crate::breaker::Name;
use crate::breaker::settings::{Plan, plain};
use crate::report::Miss;
use crate::vector::read;

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

pub(crate) fn plan(profile: &str, config: Value) -> Result<Plan, Miss> {
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
    let settings = match old {
        true => settings.half_open_limit(wait).at_limit(AtLimit::ProbeAgain),
        false => settings,
    };
    Ok(Plan {
        initial_state: config.initial_state,
        unhandled: match old {
            true => Outcome::Ignored,
            false => Outcome::Success,
        },
        break_sequence: config.break_sequence_ms.into_iter().map(ms).collect(),
        ..settings.into()
    })
}
