//! `breaker/1`: a circuit breaker a rule, one inside the other, around a service that answers when a step says so.

use serde::Deserialize;
use serde_json::Value;

use buttress::algo::breaker::{Figures, State};

use crate::report::{Miss, same};
use crate::vector::{present, read};
use bench::Bench;
use settings::Plan;

mod bench;
mod log;
mod profiles;
mod settings;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: Value,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    op: Op,
    call: Option<String>,
    error: Option<String>,
    result: Option<String>,
    to: Option<Name>,
    for_ms: Option<u64>,
    expect: Option<Expect>,
    state: Option<Name>,
    states: Option<Vec<Name>>,
    #[serde(default, deserialize_with = "present")]
    failure_rate: Option<Option<f64>>,
    #[serde(default, deserialize_with = "present")]
    slow_rate: Option<Option<f64>>,
    buffered: Option<u32>,
    failed: Option<u32>,
    success: Option<u32>,
    slow: Option<u32>,
    slow_success: Option<u32>,
    slow_failed: Option<u32>,
    not_permitted: Option<u64>,
    remaining_open_ms: Option<u128>,
    events: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Success,
    Failure,
    SlowSuccess,
    SlowFailure,
    Timeout,
    Ignore,
    Cancel,
    Transition,
    Reset,
    Query,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Permitted,
    Rejected,
    Ok,
    Error,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Name {
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

impl Name {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open => State::Open,
            Self::HalfOpen => State::HalfOpen,
            Self::ForcedOpen => State::ForcedOpen,
            Self::Disabled => State::Disabled,
            Self::MetricsOnly => State::MetricsOnly,
        }
    }

    fn of(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open => Self::Open,
            State::HalfOpen => Self::HalfOpen,
            State::ForcedOpen => Self::ForcedOpen,
            State::Disabled => Self::Disabled,
            State::MetricsOnly => Self::MetricsOnly,
        }
    }
}

/// A vector of profile `own` under `profile`; where the configuration can only be read as `own`, it is.
pub(crate) async fn replay(own: &str, profile: &str, body: Value) -> Result<(), Miss> {
    let case: Case = read(body)?;
    let plan = Plan::of(profile, case.config.clone());
    let mut bench = Bench::new(plan.or_else(|_| Plan::of(own, case.config))?);
    for (i, step) in case.steps.iter().enumerate() {
        bench.reach(step.at_ms).await;
        let done = bench.act(step).await;
        done.and_then(|()| check(step, &mut bench))
            .map_err(|miss| miss.at(format_args!("step {i} ({:?})", step.op)))?;
    }
    Ok(())
}

fn check(step: &Step, bench: &mut Bench) -> Result<(), Miss> {
    if let Some(events) = &step.events {
        same("what was told", &bench.told(), events)?;
    }
    let figures = bench.figures();
    if let Some(states) = &step.states {
        same(
            "the states",
            figures.iter().map(|it| Name::of(it.state)).collect(),
            states.clone(),
        )?;
    }
    // With several rules, what is expected of one is expected of each.
    let mut each = figures.iter();
    each.try_for_each(|figures| check_figures(step, figures, bench))
}

fn check_figures(step: &Step, figures: &Figures, bench: &Bench) -> Result<(), Miss> {
    let calls = figures.calls;
    if let Some(state) = step.state {
        same("the state", Name::of(figures.state), state)?;
    }
    let counts = [
        ("buffered", step.buffered, calls.calls),
        ("failed", step.failed, calls.failures),
        ("success", step.success, calls.calls - calls.failures),
        ("slow", step.slow, calls.slow),
        ("slow_failed", step.slow_failed, calls.slow_failures),
        (
            "slow_success",
            step.slow_success,
            calls.slow - calls.slow_failures,
        ),
    ];
    for (what, wanted, got) in counts {
        same(what, got, wanted.unwrap_or(got))?;
    }
    let refused = step.not_permitted.unwrap_or(figures.refused);
    same("not_permitted", figures.refused, refused)?;
    let left = figures.retry_after.unwrap_or_default().as_millis();
    same(
        "remaining_open_ms",
        left,
        step.remaining_open_ms.unwrap_or(left),
    )?;

    let (failures, slow) = bench.rates(figures);
    for (what, wanted, got) in [
        ("failure_rate", step.failure_rate, failures),
        ("slow_rate", step.slow_rate, slow),
    ] {
        let Some(wanted) = wanted else { continue };
        let percent = got.map(|rate| rate * 100.0);
        let near = match (percent, wanted) {
            (Some(got), Some(wanted)) => (got - wanted).abs() <= 0.5,
            (got, wanted) => got == wanted,
        };
        if !near {
            same(what, percent, wanted)?;
        }
    }
    Ok(())
}
