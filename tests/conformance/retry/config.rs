use std::time::Duration;

use serde::Deserialize;

use buttress::algo::backoff::{Backoff, Jitter};
use buttress::layers::retry::RetryLayer;

use crate::report::Miss;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    backoff: Kind,
    base_ms: Option<f64>,
    multiplier: Option<f64>,
    min_ms: Option<f64>,
    max_ms: Option<f64>,
    #[serde(default)]
    delays_ms: Vec<u64>,
    jitter: Option<JitterConfig>,
    #[serde(default)]
    jitter_after_cap: bool,
    max_attempts: Option<i64>,
    /// Errors that are tried again; all of them if it is absent.
    retry_errors: Option<Vec<String>>,
    #[serde(default)]
    retry_results: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Constant,
    Linear,
    Exponential,
    Uniform,
    Custom,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
enum JitterConfig {
    SymmetricFactor {
        factor: f64,
        #[serde(default)]
        inverted_draw: bool,
    },
    SymmetricAbsolute {
        jitter_ms: f64,
        #[serde(default)]
        inverted_draw: bool,
    },
    DecorrelatedV2,
}

impl Config {
    /// Jitter to both sides is written as a longer wait that is shortened by a part.
    pub(super) fn backoff(&self) -> Result<Backoff, Miss> {
        let (stretch, jitter) = self.jitter()?;
        let base = ms(self.base_ms.unwrap_or_default() * stretch);
        let backoff = match self.backoff {
            Kind::Constant => Backoff::constant(base),
            Kind::Linear => Backoff::linear(base),
            Kind::Exponential => Backoff::exponential(base, self.multiplier.unwrap_or(2.0)),
            Kind::Uniform => Backoff::constant(ms(self.max_ms.unwrap_or_default())),
            Kind::Custom => Backoff::constant(Duration::ZERO),
        };
        let cap = match (self.max_ms, self.jitter_after_cap) {
            (None, _) => Duration::MAX,
            (Some(max), true) => ms(max * stretch),
            (Some(max), false) => ms(max),
        };
        Ok(backoff.cap(cap).jitter(jitter))
    }

    /// By how much waits are longer before the jitter shortens them.
    fn jitter(&self) -> Result<(f64, Jitter), Miss> {
        let part = |factor: f64| (1.0 + factor, Jitter::Part(2.0 * factor / (1.0 + factor)));
        match (self.backoff, self.jitter) {
            (Kind::Uniform, None) => {
                let (least, most) = (self.min_ms, self.max_ms.unwrap_or_default());
                Ok((1.0, Jitter::Part(1.0 - least.unwrap_or_default() / most)))
            }
            (_, None) => Ok((1.0, Jitter::None)),
            (_, Some(JitterConfig::SymmetricFactor { factor, .. })) => Ok(part(factor)),
            (Kind::Constant, Some(JitterConfig::SymmetricAbsolute { jitter_ms, .. })) => {
                Ok(part(jitter_ms / self.base_ms.unwrap_or_default()))
            }
            (Kind::Exponential, Some(JitterConfig::DecorrelatedV2)) => Ok((1.0, Jitter::Smooth)),
            _ => Err(Miss::Unsupported("this jitter of this backoff".into())),
        }
    }

    /// The draw that has the same effect: ours shortens, so 0 is the longest wait.
    pub(super) fn draw(&self, random: f64) -> f64 {
        match self.jitter {
            Some(
                JitterConfig::SymmetricFactor { inverted_draw, .. }
                | JitterConfig::SymmetricAbsolute { inverted_draw, .. },
            ) if inverted_draw => random,
            Some(JitterConfig::DecorrelatedV2) => random,
            _ => 1.0 - random,
        }
    }

    /// Whether waits are drawn first and cut at the cap then, so that long ones are all the same.
    pub(super) fn cuts_at_cap(&self) -> bool {
        self.jitter.is_some() && self.max_ms.is_some() && !self.jitter_after_cap
    }

    pub(super) fn layer(&self) -> Result<RetryLayer, Miss> {
        let attempts = match self.max_attempts.unwrap_or(UNLIMITED) {
            UNLIMITED => u32::MAX,
            attempts => u32::try_from(attempts).unwrap_or(0),
        };
        let layer = RetryLayer::new(attempts).budget(None);
        Ok(layer.longest_hint(Duration::MAX).backoff(self.backoff()?))
    }

    /// Panics if the library refuses it.
    pub(super) fn check(&self) -> Result<(), Miss> {
        self.layer().map(drop)
    }

    /// Whether the waits are what the rules say after each attempt.
    pub(super) fn has_hints(&self) -> bool {
        self.backoff == Kind::Custom
    }

    /// The wait after so many attempts, where the rules name it.
    pub(super) fn hint(&self, attempts: usize) -> Option<Duration> {
        let last = self.delays_ms.last();
        let millis = self.delays_ms.get(attempts - 1).or(last);
        millis.map(|millis| Duration::from_millis(*millis))
    }

    pub(super) fn retries(&self, said: &str) -> bool {
        match (said.strip_prefix("result:"), &self.retry_errors) {
            (Some(result), _) => self.retry_results.iter().any(|it| it == result),
            (None, None) => true,
            (None, Some(errors)) => errors.iter().any(|it| said == format!("error:{it}")),
        }
    }
}

fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}

const UNLIMITED: i64 = -1;
