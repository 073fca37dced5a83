use std::time::Duration;

use serde::Deserialize;

use buttress::algo::limit::{self, Aggregate, Average, SampleWindow};
use buttress::algo::throttle::Throttle;
use buttress::clock;

use super::algorithm::Figure;
use super::samples::near;
use crate::report::Miss;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measure {
    measure: String,
    window: Option<u32>,
    warmup: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum Added {
    Add { value: f64, result: Option<f64> },
}

pub(super) fn measure(config: Measure, steps: Vec<Added>) -> Result<(), Miss> {
    let (Some(window), Some(warmup), "exponential_average") =
        (config.window, config.warmup, config.measure.as_str())
    else {
        let why = format!("the measure `{}`", config.measure);
        return Err(Miss::Unsupported(why));
    };
    let mut average = Average::new(window, warmup);
    for (i, Added::Add { value, result }) in steps.into_iter().enumerate() {
        let got = average.add(value);
        near("the average", Some(got), result).map_err(|miss| miss.at(format_args!("step {i}")))?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    aggregate: Figure,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum OfWindow {
    Add {
        /// In nanoseconds.
        rtt: u64,
        #[serde(default)]
        inflight: usize,
        #[serde(default)]
        dropped: Flag,
    },
    Query {
        tracked_rtt: Option<f64>,
        inflight: Option<f64>,
        count: Option<f64>,
    },
}

/// Whether, as the formats have it: `true` or 1.
#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(super) enum Flag {
    #[default]
    Absent,
    Bool(bool),
    Number(u8),
}

pub(super) fn window_aggregate(config: Window, steps: Vec<OfWindow>) -> Result<(), Miss> {
    let aggregate = config.aggregate.read()?;
    let mut window = SampleWindow::default();
    for step in steps {
        match step {
            OfWindow::Add {
                rtt,
                inflight,
                dropped,
            } => {
                let dropped = matches!(dropped, Flag::Bool(true) | Flag::Number(1..));
                window.add(Duration::from_nanos(rtt), inflight, dropped);
            }
            OfWindow::Query {
                tracked_rtt,
                inflight,
                count,
            } => {
                let rtt = match aggregate {
                    Aggregate::Average => window.mean(),
                    Aggregate::Percentile(share) => window.quantile(share),
                };
                near("the latency", Some(rtt.as_nanos() as f64), tracked_rtt)?;
                let most = window.most_in_flight() as f64;
                near("the most in flight", Some(most), inflight)?;
                near("the number of calls", Some(window.count().into()), count)?;
            }
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    function: String,
    floor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum Applied {
    Apply { x: usize, y: f64 },
}

pub(super) fn function(config: Function, steps: Vec<Applied>) -> Result<(), Miss> {
    if config.function != "log10" || config.floor.is_some_and(|floor| floor != 1.0) {
        let why = format!(
            "`{}` of {:?}: the steps of ours grow by the logarithm",
            config.function, config.floor
        );
        return Err(Miss::Unsupported(why));
    }
    steps.into_iter().try_for_each(|Applied::Apply { x, y }| {
        near("the step", Some(limit::log10(x) as f64), Some(y))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum OfQueue {
    Rate {
        queued: usize,
        rejection_threshold: usize,
        max_queue: usize,
        rate: f64,
    },
}

pub(super) fn rejection_rate(steps: Vec<OfQueue>) -> Result<(), Miss> {
    steps.into_iter().try_for_each(|step| {
        let OfQueue::Rate {
            queued,
            rejection_threshold,
            max_queue,
            rate,
        } = step;
        let got = limit::rejection_rate(queued, rejection_threshold, max_queue);
        near("the rate", Some(got), Some(rate))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum OfThrottle {
    Rate {
        executions: u32,
        successes: u32,
        success_rate_threshold: f64,
        max_rejection_rate: f64,
        rate: f64,
    },
}

pub(super) fn throttle_rate(steps: Vec<OfThrottle>) -> Result<(), Miss> {
    let now = clock::now();
    steps.into_iter().try_for_each(|step| {
        let OfThrottle::Rate {
            executions,
            successes,
            success_rate_threshold,
            max_rejection_rate,
            rate,
        } = step;
        let throttle = Throttle::default().k(1.0 / success_rate_threshold);
        let mut throttle = throttle.most(max_rejection_rate);
        (0..executions).for_each(|call| throttle.record(call < successes, now));
        near("the rate", Some(throttle.rejection_rate(now)), Some(rate))
    })
}
