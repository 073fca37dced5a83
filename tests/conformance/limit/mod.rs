//! `limit/1`: samples fed to the limits, partitions through the bulkhead, and tables of what they are made of.

use serde::Deserialize;
use serde_json::Value;

use crate::report::Miss;
use crate::vector::read;

mod algorithm;
mod partition;
mod samples;
mod tables;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: Kind,
    #[serde(default)]
    config: Value,
    steps: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Algorithm,
    Windowed,
    Adaptive,
    Partition,
    Measure,
    WindowAggregate,
    Function,
    RejectionRate,
    ThrottleRate,
    Bbr,
}

pub(crate) fn replay(body: Value) -> Result<(), Miss> {
    let Case {
        kind,
        config,
        steps,
    } = read(body)?;
    match kind {
        Kind::Algorithm | Kind::Windowed | Kind::Adaptive => {
            samples::replay(read(config)?, read(steps)?)
        }
        Kind::Partition => partition::replay(read(config)?, read(steps)?),
        Kind::Measure => tables::measure(read(config)?, read(steps)?),
        Kind::WindowAggregate => tables::window_aggregate(read(config)?, read(steps)?),
        Kind::Function => tables::function(read(config)?, read(steps)?),
        Kind::RejectionRate => tables::rejection_rate(read(steps)?),
        Kind::ThrottleRate => tables::throttle_rate(read(steps)?),
        Kind::Bbr => Err(Miss::Unsupported(
            "protection by the load of the own machine: ours looks at the peer".into(),
        )),
    }
}
