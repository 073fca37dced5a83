use serde::Deserialize;

use buttress::algo::budget::InFlight;

use crate::report::{Miss, same};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    max_rate: f64,
    min_concurrency: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum Step {
    Start {
        #[serde(flatten)]
        seen: Seen,
    },
    /// A first attempt ends.
    #[serde(alias = "end")]
    Finish {
        #[serde(flatten)]
        seen: Seen,
    },
    Acquire {
        expect: Option<Expect>,
        #[serde(flatten)]
        seen: Seen,
    },
    Release {
        #[serde(flatten)]
        seen: Seen,
    },
    Set {
        executions: u32,
        inflight: u32,
    },
}

/// What is to be seen after a step.
#[derive(Deserialize)]
pub(super) struct Seen {
    rate: Option<f64>,
    executions: Option<u32>,
    inflight: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expect {
    Permitted,
    Rejected,
}

impl Config {
    pub(super) fn budget(&self) -> InFlight {
        InFlight::new(self.max_rate, self.min_concurrency)
    }
}

pub(super) fn replay(config: &Config, steps: &[Step]) -> Result<(), Miss> {
    let budget = config.budget();
    for (i, step) in steps.iter().enumerate() {
        act(step, &budget).map_err(|miss| miss.at(format_args!("step {i}")))?;
    }
    Ok(())
}

fn act(step: &Step, budget: &InFlight) -> Result<(), Miss> {
    let seen = match step {
        Step::Start { seen } => {
            budget.begin();
            seen
        }
        Step::Finish { seen } => {
            budget.end();
            seen
        }
        Step::Release { seen } => {
            budget.release();
            seen
        }
        Step::Acquire { expect, seen } => {
            let got = match budget.withdraw() {
                true => Expect::Permitted,
                false => Expect::Rejected,
            };
            same("the retry", got, expect.unwrap_or(got))?;
            seen
        }
        Step::Set {
            executions,
            inflight,
        } => return set(budget, *executions, *inflight),
    };
    let (calls, retries) = (budget.calls(), budget.retries());
    same("the calls", calls, seen.executions.unwrap_or(calls))?;
    same("the retries", retries, seen.inflight.unwrap_or(retries))?;
    let rate = f64::from(retries) / f64::from(calls.max(1));
    let near = seen.rate.is_none_or(|wanted| (rate - wanted).abs() < 0.005);
    same("whether the rate is the one expected", near, true)
}

/// Both counts are reached as they are in a service: retries begin while there are calls that allow them.
fn set(budget: &InFlight, executions: u32, inflight: u32) -> Result<(), Miss> {
    while budget.retries() > inflight {
        budget.release();
    }
    let mut helpers = 0;
    while budget.retries() < inflight {
        if !budget.withdraw() {
            budget.begin();
            helpers += 1;
        }
        if helpers > MOST {
            return Err(Miss::Unsupported("counts that no calls lead to".into()));
        }
    }
    while budget.calls() > executions {
        budget.end();
    }
    while budget.calls() < executions {
        budget.begin();
    }
    Ok(())
}

const MOST: u32 = 100_000;
