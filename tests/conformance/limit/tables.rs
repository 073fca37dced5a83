use std::time::Duration;

use serde::Deserialize;

use buttress::algo::limit::{self, Aggregate, Average, Median, Minimum, SampleWindow};
use buttress::algo::throttle::Throttle;
use buttress::clock;

use super::algorithm::Figure;
use super::samples::near;
use crate::report::Miss;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measure {
    measure: String,
    #[serde(alias = "size")]
    window: Option<u32>,
    #[serde(alias = "warm_up")]
    warmup: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum Added {
    Add { value: f64, result: Option<f64> },
    Reset,
}

enum Measured {
    Average(Average),
    Minimum(Minimum),
    Median(Median),
}

impl Measure {
    fn begin(&self) -> Result<Measured, Miss> {
        Ok(match (self.measure.as_str(), self.window) {
            ("exponential_average", Some(window)) => {
                Measured::Average(Average::new(window, self.warmup.unwrap_or(0)))
            }
            // Where each value has all the weight.
            ("single", _) => Measured::Average(Average::new(1, 0)),
            ("minimum", None) => Measured::Minimum(Minimum::default()),
            ("median", Some(window)) => Measured::Median(Median::new(window as usize)),
            (other, window) => {
                let why = format!("the measure `{other}` of {window:?}");
                return Err(Miss::Unsupported(why));
            }
        })
    }
}

pub(super) fn measure(config: Measure, steps: Vec<Added>) -> Result<(), Miss> {
    let mut measured = config.begin()?;
    for (i, step) in steps.into_iter().enumerate() {
        let (value, result) = match step {
            Added::Add { value, result } => (value, result),
            Added::Reset => {
                match &mut measured {
                    Measured::Minimum(minimum) => minimum.reset(),
                    begun => *begun = config.begin()?,
                }
                continue;
            }
        };
        let got = match &mut measured {
            Measured::Average(average) => average.add(value),
            Measured::Minimum(minimum) => minimum.add(value),
            Measured::Median(median) => median.add(value),
        };
        near("the measure", Some(got), result).map_err(|miss| miss.at(format_args!("step {i}")))?;
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

#[derive(Clone, Deserialize)]
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

impl Function {
    /// What it is of `x`. Ours are of one at least; a higher floor is where they are used.
    fn of(&self, x: usize) -> Option<f64> {
        let step = match self.function.as_str() {
            "log10" => limit::log10(x),
            "sqrt" | "square_root" => limit::sqrt(x),
            _ => return None,
        };
        Some((step as f64).max(self.floor.unwrap_or(1.0)))
    }

    /// Whether it is the queue that a gradient limit has by itself.
    pub(super) fn is_own_queue(&self) -> bool {
        (0..1000).all(|x| self.of(x) == Some(limit::sqrt(x).max(4) as f64))
    }

    pub(super) fn unsupported(&self) -> Miss {
        Miss::Unsupported(format!("`{}` of {:?}", self.function, self.floor))
    }
}

pub(super) fn function(config: Function, steps: Vec<Applied>) -> Result<(), Miss> {
    steps.into_iter().try_for_each(|Applied::Apply { x, y }| {
        let got = config.of(x).ok_or_else(|| config.unsupported())?;
        near("the step", Some(got), Some(y))
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
