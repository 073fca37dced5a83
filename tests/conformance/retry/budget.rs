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
    Start,
    /// A first attempt ends.
    End,
    Acquire {
        expect: Option<Expect>,
        rate: Option<f64>,
    },
    Release,
    Set {
        executions: u32,
        inflight: u32,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expect {
    Permitted,
    Rejected,
}

pub(super) fn replay(config: &Config, steps: &[Step]) -> Result<(), Miss> {
    let budget = InFlight::new(config.max_rate, config.min_concurrency);
    for (i, step) in steps.iter().enumerate() {
        act(step, &budget).map_err(|miss| miss.at(format_args!("step {i}")))?;
    }
    Ok(())
}

fn act(step: &Step, budget: &InFlight) -> Result<(), Miss> {
    match *step {
        Step::Start => budget.begin(),
        Step::End => budget.end(),
        Step::Release => budget.release(),
        Step::Set {
            executions,
            inflight,
        } => return set(budget, executions, inflight),
        Step::Acquire { expect, rate } => {
            let got = match budget.withdraw() {
                true => Expect::Permitted,
                false => Expect::Rejected,
            };
            same("the retry", got, expect.unwrap_or(got))?;
            let now = f64::from(budget.retries()) / f64::from(budget.calls());
            let near = rate.is_none_or(|wanted| (now - wanted).abs() < 0.005);
            return same("whether the rate is the one expected", near, true);
        }
    }
    Ok(())
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
