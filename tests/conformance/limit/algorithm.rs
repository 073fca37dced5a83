use std::time::{Duration, Instant};

use serde::Deserialize;

use buttress::algo::limit::{
    Adaptive, Aggregate, Aimd, Gradient, Gradient2, Limit, Sample, Vegas, Windowed,
};

use super::tables::Function;
use crate::report::Miss;

/// The settings of any of them. What is not given is as the library has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    algorithm: String,
    initial_limit: usize,
    min_limit: Option<usize>,
    max_limit: Option<usize>,
    smoothing: Option<f64>,
    backoff_ratio: Option<f64>,
    timeout_ms: Option<f64>,
    alpha: Option<usize>,
    beta: Option<usize>,
    threshold: Option<usize>,
    step: Option<usize>,
    queue_size: Option<QueueSize>,
    long_window: Option<u32>,
    rtt_tolerance: Option<f64>,
    /// It falls into no vector.
    #[serde(rename = "probe_interval", alias = "probe_multiplier")]
    _probe_interval: Option<i64>,
    window: Option<Window>,
    max_limit_factor: Option<f64>,
    max_limit_factor_decay: Option<f64>,
    min_max_limit_factor: Option<f64>,
    max_limit_stabilization_window_ms: Option<f64>,
    window_min_ms: Option<f64>,
    window_max_ms: Option<f64>,
    window_min_samples: Option<u32>,
    quantile: Option<f64>,
    baseline_ms: Option<f64>,
    /// However many there were, the average is theirs.
    #[serde(rename = "baseline_warm_samples")]
    _baseline_warm_samples: Option<u32>,
    baseline_window: Option<u32>,
    correlation_window: Option<usize>,
}

/// A number of calls, or a function of the limit.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum QueueSize {
    Calls(usize),
    OfLimit(Function),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    min_ms: f64,
    max_ms: f64,
    min_samples: u32,
    min_rtt_us: f64,
    aggregate: Figure,
}

/// What stands for a window.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Figure {
    Name(String),
    Kind { kind: String, p: Option<f64> },
}

/// A limit, and what else its replay asks of it.
pub(super) enum Any {
    Aimd(Aimd),
    Vegas(Vegas),
    Gradient(Gradient),
    Gradient2(Gradient2),
    Adaptive(Box<Adaptive>),
    Windowed(Box<Windowed<Any>>),
}

impl Config {
    pub(super) fn build(&self) -> Result<Any, Miss> {
        let limit = match self.algorithm.as_str() {
            "aimd" => Any::Aimd(self.aimd()),
            "vegas" => Any::Vegas(self.vegas()),
            "gradient" => Any::Gradient(self.gradient()?),
            "gradient2" => Any::Gradient2(self.gradient2()?),
            "failsafe_adaptive" => Any::Adaptive(Box::new(self.adaptive())),
            other => {
                return Err(Miss::Unsupported(format!(
                    "the algorithm `{other}`: ours are others"
                )));
            }
        };
        let Some(window) = &self.window else {
            return Ok(limit);
        };
        let windowed = Windowed::new(limit)
            .length(millis(window.min_ms), millis(window.max_ms))
            .min_samples(window.min_samples)
            .min_rtt(millis(window.min_rtt_us / 1e3))
            .aggregate(window.aggregate.read()?);
        Ok(Any::Windowed(Box::new(windowed)))
    }

    fn range(&self) -> std::ops::RangeInclusive<usize> {
        self.min_limit.unwrap_or(1)..=self.max_limit.unwrap_or(1000)
    }

    fn aimd(&self) -> Aimd {
        let mut limit = Aimd::new(self.initial_limit).within(self.range());
        set(&mut limit, self.backoff_ratio, Aimd::backoff);
        set(&mut limit, self.timeout_ms.map(millis), Aimd::timeout);
        limit
    }

    fn vegas(&self) -> Vegas {
        // Its no-load latency is renewed in no vector.
        let limit = Vegas::new(self.initial_limit).memory(Duration::MAX);
        let mut limit = limit.within(self.range());
        set(&mut limit, self.smoothing, Vegas::smoothing);
        set(&mut limit, self.alpha, Vegas::alpha);
        set(&mut limit, self.beta, Vegas::beta);
        set(&mut limit, self.threshold, Vegas::threshold);
        set(&mut limit, self.step, Vegas::step);
        set(&mut limit, self.backoff_ratio, Vegas::backoff);
        limit
    }

    fn gradient(&self) -> Result<Gradient, Miss> {
        // Its no-load latency is renewed in no vector.
        let limit = Gradient::new(self.initial_limit).memory(Duration::MAX);
        let mut limit = limit.within(self.range());
        set(&mut limit, self.smoothing, Gradient::smoothing);
        match &self.queue_size {
            Some(QueueSize::OfLimit(function)) if !function.is_own_queue() => {
                return Err(function.unsupported());
            }
            Some(QueueSize::Calls(calls)) => limit = limit.queue(*calls),
            _ => {}
        }
        set(&mut limit, self.rtt_tolerance, Gradient::tolerance);
        set(&mut limit, self.backoff_ratio, Gradient::backoff);
        Ok(limit)
    }

    /// The published one gives drops no say.
    fn gradient2(&self) -> Result<Gradient2, Miss> {
        let limit = Gradient2::new(self.initial_limit).backoff(1.0);
        let mut limit = limit.within(self.range());
        set(&mut limit, self.smoothing, Gradient2::smoothing);
        match &self.queue_size {
            Some(QueueSize::OfLimit(function)) => return Err(function.unsupported()),
            Some(QueueSize::Calls(calls)) => limit = limit.queue(*calls),
            None => {}
        }
        set(&mut limit, self.long_window, Gradient2::long_window);
        set(&mut limit, self.rtt_tolerance, Gradient2::tolerance);
        Ok(limit)
    }

    /// The published one gives drops no say.
    fn adaptive(&self) -> Adaptive {
        let limit = Adaptive::new(self.initial_limit).backoff(1.0);
        let mut limit = limit.within(self.range());
        set(&mut limit, self.max_limit_factor, Adaptive::headroom);
        let least = self.min_max_limit_factor.unwrap_or(1.0);
        let decay = |limit: Adaptive, decay| limit.headroom_decay(decay, least);
        set(&mut limit, self.max_limit_factor_decay, decay);
        let peaks = self.max_limit_stabilization_window_ms.map(millis);
        set(&mut limit, peaks, Adaptive::headroom_over);
        if let (Some(least), Some(most)) = (self.window_min_ms, self.window_max_ms) {
            let samples = self.window_min_samples.unwrap_or(1);
            limit = limit.window(millis(least), millis(most), samples);
        }
        set(&mut limit, self.quantile, Adaptive::quantile);
        set(&mut limit, self.baseline_window, Adaptive::baseline_age);
        set(&mut limit, self.baseline_ms.map(millis), Adaptive::baseline);
        set(
            &mut limit,
            self.correlation_window,
            Adaptive::correlation_window,
        );
        limit
    }
}

impl Figure {
    pub(super) fn read(&self) -> Result<Aggregate, Miss> {
        match self {
            Self::Name(name) if name == "average" => Ok(Aggregate::Average),
            Self::Kind { kind, .. } if kind == "average" => Ok(Aggregate::Average),
            Self::Kind { kind, p: Some(p) } if kind == "percentile" => {
                Ok(Aggregate::Percentile(*p))
            }
            Self::Name(other) | Self::Kind { kind: other, .. } => Err(Miss::Unsupported(format!(
                "the figure `{other}` for a window"
            ))),
        }
    }
}

impl Any {
    /// The limit before it is rounded, where it shows that.
    pub(super) fn estimate(&self) -> Option<f64> {
        match self {
            Self::Vegas(limit) => Some(limit.estimate()),
            Self::Gradient(limit) => Some(limit.estimate()),
            Self::Gradient2(limit) => Some(limit.estimate()),
            _ => None,
        }
    }

    pub(super) fn max_limit(&self, in_flight: usize) -> Option<f64> {
        match self {
            Self::Adaptive(limit) => Some(limit.max_limit(in_flight)),
            _ => None,
        }
    }
}

impl Limit for Any {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        match self {
            Self::Aimd(limit) => limit.on_sample(sample, now),
            Self::Vegas(limit) => limit.on_sample(sample, now),
            Self::Gradient(limit) => limit.on_sample(sample, now),
            Self::Gradient2(limit) => limit.on_sample(sample, now),
            Self::Adaptive(limit) => limit.on_sample(sample, now),
            Self::Windowed(limit) => limit.on_sample(sample, now),
        }
    }

    fn limit(&self) -> usize {
        match self {
            Self::Aimd(limit) => limit.limit(),
            Self::Vegas(limit) => limit.limit(),
            Self::Gradient(limit) => limit.limit(),
            Self::Gradient2(limit) => limit.limit(),
            Self::Adaptive(limit) => limit.limit(),
            Self::Windowed(limit) => limit.limit(),
        }
    }
}

/// Sets what is given.
fn set<L: Clone, V>(limit: &mut L, value: Option<V>, setting: impl FnOnce(L, V) -> L) {
    if let Some(value) = value {
        *limit = setting(limit.clone(), value);
    }
}

pub(super) fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}
