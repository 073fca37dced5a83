use serde::Deserialize;
use serde_json::Value;

use buttress::algo::breaker::Cancelled;

use super::{after, ms};
use crate::breaker::settings::{Plan, plain};
use crate::report::Miss;
use crate::vector::read;

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

pub(crate) fn plan(config: Value) -> Result<Plan, Miss> {
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
