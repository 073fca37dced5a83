use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::Value;

use buttress::Outcome;
use buttress::algo::breaker::{Cancelled, Settings};

use super::{Name, Step, profiles};
use crate::report::Miss;

/// How a profile's configuration is written in the library's settings.
pub(super) struct Plan {
    pub(super) rules: Vec<Rule>,
    /// Errors that count; all of them if it is absent.
    pub(super) record_errors: Option<Vec<String>>,
    pub(super) ignore_errors: Vec<String>,
    /// Results that count as failures.
    pub(super) record_results: Vec<String>,
    pub(super) initial_state: Option<Name>,
    /// What becomes of a call that ends outside the set of what is handled.
    pub(super) unhandled: Outcome,
    /// A probe that ends otherwise than well re-opens; a call that is given up counts nowhere else.
    pub(super) cancel_reopens: bool,
    /// A timer turns an open breaker half-open.
    pub(super) auto_half_open: bool,
    /// How long it stays open after so many half-open states since it was closed.
    pub(super) break_sequence: Vec<Duration>,
    /// Some steps by hand are errors.
    pub(super) checks_steps: bool,
    /// The wait of the open state is as short as a wait can be, and has passed when the next call comes.
    pub(super) no_wait: bool,
    /// How long it is open that is opened by hand for so many milliseconds.
    pub(super) wait: fn(u64) -> Duration,
    /// Rates are shown from the minimum of calls on.
    pub(super) rate_from_minimum: bool,
}

/// One breaker.
pub(super) struct Rule {
    pub(super) settings: Settings,
    /// Failures are no concern of it.
    pub(super) slow_calls_alone: bool,
}

impl Plan {
    pub(super) fn of(profile: &str, config: Value) -> Result<Self, Miss> {
        let plan = || match profile {
            // What follows from the pattern alone is written in the terms of the standard.
            "resilience4j" | "neutral" => profiles::resilience4j::plan(config),
            "failsafe-go" => profiles::failsafe_go::plan(config),
            "polly-v7" | "polly-v8" => profiles::polly::plan(profile, config),
            "hystrix" => profiles::hystrix::plan(config),
            "sentinel" => profiles::sentinel::plan(config),
            other => Err(Miss::Unsupported(format!("the profile `{other}`"))),
        };
        catch_unwind(AssertUnwindSafe(plan)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref().copied()).unwrap_or("?");
            Err(Miss::Unsupported(format!("refused as a setting: {text}")))
        })
    }

    pub(super) fn outcome_of_result(&self, step: &Step) -> Outcome {
        match &step.result {
            Some(result) if self.record_results.contains(result) => Outcome::Failure,
            _ => Outcome::Success,
        }
    }

    pub(super) fn outcome_of_error(&self, step: &Step) -> Outcome {
        match (&step.error, &self.record_errors) {
            (Some(error), _) if self.ignore_errors.contains(error) => Outcome::Ignored,
            (Some(error), Some(recorded)) if !recorded.contains(error) => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}

impl From<Settings> for Plan {
    fn from(settings: Settings) -> Self {
        Self {
            rules: vec![Rule {
                settings,
                slow_calls_alone: false,
            }],
            record_errors: None,
            ignore_errors: Vec::new(),
            record_results: Vec::new(),
            initial_state: None,
            unhandled: Outcome::Ignored,
            cancel_reopens: false,
            auto_half_open: false,
            break_sequence: Vec::new(),
            checks_steps: false,
            no_wait: false,
            wait: Duration::from_millis,
            rate_from_minimum: false,
        }
    }
}

/// What all profiles start from: waits are as long as they are said to be, and nothing is counted that nobody said.
pub(super) fn plain() -> Settings {
    Settings::default()
        .open_jitter(0.0)
        .open_multiplier(1.0)
        .open_max(Duration::MAX)
        .half_open_limit(Duration::MAX)
        .cancelled(Cancelled::Ignored)
}
