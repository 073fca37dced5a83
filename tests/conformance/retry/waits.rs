use std::time::Duration;

use serde::Deserialize;

use buttress::algo::Rng;
use buttress::algo::backoff::Waits;

use super::config::Config;
use super::flow::{Ended, near, run};
use crate::report::{Miss, same};

/// What is expected of one wait.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// 1 for the first wait.
    retry: u32,
    /// The unit draw; without it any will do.
    random: Option<f64>,
    delay_ms: Option<f64>,
    delay_range_ms: Option<(f64, f64)>,
    min_exclusive_ms: Option<f64>,
    max_inclusive_ms: Option<f64>,
    #[serde(default)]
    saturates: bool,
    /// What the attempt before ended with.
    outcome: Option<String>,
}

pub(super) async fn replay(profile: &str, config: &Config, expect: &[Wait]) -> Result<(), Miss> {
    if config.is_by_outcome() {
        return replay_flow(profile, config, expect).await;
    }
    let backoff = config.backoff(profile);
    let mut waits = Waits::default();
    let mut last = 0;
    for (i, wanted) in expect.iter().enumerate() {
        let draws = match wanted.random {
            Some(draw) => vec![config.draw(draw)],
            None => vec![0.0, 0.25, 0.5, 0.75, BELOW_ONE],
        };
        for draw in draws {
            // One state, as long as the retries follow each other; of any draw, each begins afresh.
            if wanted.random.is_none() || wanted.retry != last + 1 {
                waits = Waits::default();
                for _ in 1..wanted.retry {
                    backoff.next(&mut waits, &mut Draw(draw));
                }
            }
            let wait = backoff.next(&mut waits, &mut Draw(draw));
            let checked = check(wanted, wait);
            checked.map_err(|miss| miss.at(format_args!("wait {i}, draw {draw}")))?;
        }
        last = wanted.retry;
    }
    Ok(())
}

/// Waits that the rules name, one by one: they show only in a flow.
async fn replay_flow(profile: &str, config: &Config, expect: &[Wait]) -> Result<(), Miss> {
    for (i, wanted) in expect.iter().enumerate() {
        let outcome = wanted.outcome.as_deref().unwrap_or("error:e");
        let failures = (0..=wanted.retry).map(|_| Ended::AtOnce(outcome.to_owned()));
        let (spans, _) = run(profile, config, failures.collect()).await;
        let retry = wanted.retry as usize;
        let (Some(before), Some(after)) = (spans.get(retry - 1), spans.get(retry)) else {
            return Err(Miss::Failed(format!("no retry {retry}")));
        };
        check(wanted, after.0 - before.1).map_err(|miss| miss.at(format_args!("wait {i}")))?;
    }
    Ok(())
}

fn check(wanted: &Wait, wait: Duration) -> Result<(), Miss> {
    let millis = wait.as_secs_f64() * 1e3;
    if let Some(exact) = wanted.delay_ms {
        near(wait, exact)?;
    }
    let (least, most) = wanted.delay_range_ms.unwrap_or((0.0, f64::INFINITY));
    let above = wanted.min_exclusive_ms.unwrap_or(-1.0);
    let most = most.min(wanted.max_inclusive_ms.unwrap_or(most));
    let inside = millis + 1.0 >= least && millis > above && millis <= most + 1.0;
    same("whether it lies within the bounds", inside, true)?;
    let huge = wait > Duration::from_secs(u64::from(u32::MAX));
    same("whether it is huge", huge || !wanted.saturates, true)
}

/// Draws the same number each time.
struct Draw(f64);

impl Rng for Draw {
    fn next_u64(&mut self) -> u64 {
        unreachable!("only the unit draw is used")
    }

    fn unit(&mut self) -> f64 {
        self.0
    }
}

const BELOW_ONE: f64 = 1.0 - f64::EPSILON;
