use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use buttress::algo::backoff::{Backoff, Jitter};
use buttress::layers::retry::{Decision, RetryLayer};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    backoff: Kind,
    base_ms: Option<f64>,
    multiplier: Option<f64>,
    min_ms: Option<f64>,
    max_ms: Option<f64>,
    #[serde(default, alias = "delays")]
    delays_ms: Delays,
    /// Cuts an exponential wait to whole milliseconds at each step.
    #[serde(default, alias = "truncate_ms", alias = "whole_ms")]
    truncate: bool,
    jitter: Option<JitterConfig>,
    #[serde(default)]
    jitter_after_cap: bool,
    max_attempts: Option<i64>,
    max_duration_ms: Option<f64>,
    /// Errors that are tried again; all of them if it is absent.
    retry_errors: Option<Vec<String>>,
    #[serde(default)]
    retry_results: Vec<String>,
    /// Errors and results that are final, whatever else is said.
    #[serde(default, alias = "ignore_errors")]
    abort_errors: Vec<String>,
    #[serde(default)]
    abort_results: Vec<String>,
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
    ByOutcome,
}

/// One after the other, or by what an attempt ended with.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Delays {
    List(Vec<f64>),
    Map(BTreeMap<String, f64>),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
enum JitterConfig {
    Full,
    Equal,
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
    pub(super) fn backoff(&self, profile: &str) -> Backoff {
        if !self.is_function() {
            return self.settings(profile);
        }
        let (config, profile) = (self.clone(), profile.to_owned());
        Backoff::from_fn(move |retry, draw| ms(config.wait(&profile, retry, draw)))
    }

    /// The backoff that no function is needed for.
    pub(super) fn settings(&self, profile: &str) -> Backoff {
        let (stretch, jitter) = self.jitter();
        let base = ms(self.base_ms.unwrap_or_default() * stretch);
        let backoff = match (self.backoff, &self.delays_ms) {
            (Kind::Linear, _) => Backoff::linear(base),
            (Kind::Exponential, _) => Backoff::exponential(base, self.multiplier(profile)),
            (Kind::Uniform, _) => Backoff::constant(ms(self.max_ms.unwrap_or_default())),
            (Kind::Custom, Delays::List(list)) => Backoff::list(list.iter().map(|it| ms(*it))),
            _ => Backoff::constant(base),
        };
        let cap = match (self.max_ms, self.jitter_after_cap) {
            (None, _) => Duration::MAX,
            (Some(max), true) => ms(max * stretch),
            (Some(max), false) => ms(max),
        };
        backoff.cap(cap).jitter(jitter)
    }

    /// By how much waits are longer before the jitter shortens them: jitter to both sides is written as a longer wait
    /// that is shortened by a part.
    fn jitter(&self) -> (f64, Jitter) {
        let part = |factor: f64| (1.0 + factor, Jitter::Part(2.0 * factor / (1.0 + factor)));
        match (self.backoff, self.jitter) {
            (Kind::Uniform, None) => {
                let (least, most) = (self.min_ms, self.max_ms.unwrap_or_default());
                let share = 1.0 - least.unwrap_or_default() / most;
                (1.0, Jitter::Part(if most == 0.0 { 0.0 } else { share }))
            }
            (_, None) => (1.0, Jitter::None),
            (_, Some(JitterConfig::Full)) => (1.0, Jitter::Full),
            (_, Some(JitterConfig::Equal)) => (1.0, Jitter::Equal),
            (_, Some(JitterConfig::SymmetricFactor { factor, .. })) => part(factor),
            (_, Some(JitterConfig::SymmetricAbsolute { jitter_ms, .. })) => {
                let base = self.base_ms.unwrap_or_default();
                part(if jitter_ms == 0.0 {
                    0.0
                } else {
                    jitter_ms / base
                })
            }
            (_, Some(JitterConfig::DecorrelatedV2)) => (1.0, Jitter::Smooth),
        }
    }

    /// Whether no setting does it: what is drawn first and cut then, or follows no rule of ours.
    fn is_function(&self) -> bool {
        let symmetric = match self.jitter {
            Some(JitterConfig::SymmetricFactor { .. }) => true,
            Some(JitterConfig::SymmetricAbsolute { jitter_ms, .. }) => {
                // By the same time each, whatever the wait is.
                if self.backoff != Kind::Constant || Some(jitter_ms) > self.base_ms {
                    return true;
                }
                true
            }
            _ => false,
        };
        let drawn_first = self.max_ms.is_some() && !self.jitter_after_cap;
        let of_its_own = matches!(self.backoff, Kind::Uniform | Kind::Custom);
        self.truncate || symmetric && (drawn_first || of_its_own)
    }

    /// As the description of the format has it.
    fn wait(&self, profile: &str, retry: u32, draw: f64) -> f64 {
        let base = self.base_ms.unwrap_or_default();
        let n = f64::from(retry);
        let whole = match (self.backoff, &self.delays_ms) {
            (Kind::Linear, _) => base * n,
            (Kind::Exponential, _) if self.truncate => {
                let multiplier = self.multiplier(profile);
                (1..retry).fold(base, |wait, _| (wait * multiplier).floor())
            }
            (Kind::Exponential, _) => base * self.multiplier(profile).powf(n - 1.0),
            (Kind::Uniform, _) => {
                let least = self.min_ms.unwrap_or_default();
                least + draw * (self.max_ms.unwrap_or_default() - least)
            }
            (Kind::Custom, Delays::List(list)) => {
                let next = list.get(retry as usize - 1);
                next.or(list.last()).copied().unwrap_or_default()
            }
            _ => base,
        };
        let cap = self.max_ms.unwrap_or(f64::INFINITY);
        let around = |inverted| {
            if inverted {
                1.0 - 2.0 * draw
            } else {
                2.0 * draw - 1.0
            }
        };
        let jitter = |whole: f64| match self.jitter {
            Some(JitterConfig::SymmetricFactor {
                factor,
                inverted_draw,
            }) => whole * (1.0 + around(inverted_draw) * factor),
            Some(JitterConfig::SymmetricAbsolute {
                jitter_ms,
                inverted_draw,
            }) => whole + around(inverted_draw) * jitter_ms,
            _ => whole,
        };
        let wait = match self.jitter_after_cap {
            true => jitter(whole.min(cap)),
            false => jitter(whole).min(cap),
        };
        wait.max(0.0)
    }

    fn multiplier(&self, profile: &str) -> f64 {
        let default = if profile == "resilience4j" { 1.5 } else { 2.0 };
        self.multiplier.unwrap_or(default)
    }

    /// The draw that has the same effect: ours shortens, so 0 is the longest wait.
    pub(super) fn draw(&self, random: f64) -> f64 {
        if self.is_function() {
            return random;
        }
        match self.jitter {
            Some(
                JitterConfig::SymmetricFactor { inverted_draw, .. }
                | JitterConfig::SymmetricAbsolute { inverted_draw, .. },
            ) if inverted_draw => random,
            Some(JitterConfig::DecorrelatedV2 | JitterConfig::Full) => random,
            _ => 1.0 - random,
        }
    }

    pub(super) fn layer(&self, profile: &str) -> RetryLayer {
        let attempts = match self.max_attempts.unwrap_or(UNLIMITED) {
            UNLIMITED => u32::MAX,
            attempts => u32::try_from(attempts).unwrap_or(0),
        };
        let layer = RetryLayer::new(attempts).budget(None);
        let layer = match self.max_duration_ms {
            Some(limit) => layer.give_up_after(ms(limit)),
            None => layer,
        };
        layer.backoff(self.backoff(profile))
    }

    /// Settings that are odd elsewhere and have their meaning here.
    pub(super) fn is_allowed_here(&self) -> Option<&'static str> {
        let nothing = |it: Option<f64>| it == Some(0.0);
        let factor_of_one = matches!(self.jitter, Some(JitterConfig::SymmetricFactor { factor, .. }) if factor == 1.0);
        if nothing(self.base_ms) || nothing(self.max_ms) || nothing(self.max_duration_ms) {
            return Some("a wait of nothing may be asked for");
        }
        if factor_of_one {
            return Some("a wait may be drawn from nothing to twice its length");
        }
        if self.max_ms < self.base_ms && self.max_ms.is_some() {
            return Some("a cap below the first wait is that wait");
        }
        None
    }

    /// Whether what an attempt ended with says how long to wait.
    pub(super) fn is_by_outcome(&self) -> bool {
        self.backoff == Kind::ByOutcome
    }

    /// What to do after an attempt that `said` this.
    pub(super) fn decide(&self, said: &str) -> Decision {
        if !self.retries(said) {
            return Decision::Done;
        }
        let wait = match &self.delays_ms {
            Delays::Map(map) if self.is_by_outcome() => {
                map.iter().find(|(label, _)| names(label, said))
            }
            _ => None,
        };
        match wait {
            Some((_, wait)) => Decision::RetryIn(ms(*wait)),
            None => Decision::Retry { after: None },
        }
    }

    fn retries(&self, said: &str) -> bool {
        let is_in = |list: &[String]| list.iter().any(|label| names(label, said));
        match (said.starts_with("result:"), &self.retry_errors) {
            (true, _) => is_in(&self.retry_results) && !is_in(&self.abort_results),
            (false, None) => !is_in(&self.abort_errors),
            (false, Some(errors)) => is_in(errors) && !is_in(&self.abort_errors),
        }
    }
}

impl Default for Delays {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// Whether `label`, with its kind or without, is what was said.
fn names(label: &str, said: &str) -> bool {
    label == said || said.split_once(':').is_some_and(|(_, it)| it == label)
}

/// # Panics
///
/// If it is negative: there is no such duration.
fn ms(millis: f64) -> Duration {
    assert!(millis >= 0.0, "{millis} ms");
    Duration::try_from_secs_f64(millis / 1e3).unwrap_or(Duration::MAX)
}

const UNLIMITED: i64 = -1;
