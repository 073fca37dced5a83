//! `ratelimit/1`: permits asked for through the handle, and waited for by tasks of their own.

use std::task::Poll;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use buttress::algo::gcra::Limit;
use buttress::clock;
use buttress::layers::rate_limit::{Acquire, RateLimiter};

use crate::report::{Miss, same};
use crate::timeline::{Timeline, poll_once};
use crate::vector::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: Kind,
    config: Config,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Cycle,
    Bursty,
    Smooth,
    TokenBucket,
    Pacing,
    SlidingLog,
    Gcra,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// So many a period, …
    permits: Option<u32>,
    period_ms: Option<f64>,
    /// … or one each time.
    #[serde(alias = "refill_every_ms", alias = "emission_interval_ms")]
    interval_ms: Option<f64>,
    #[serde(alias = "burst")]
    capacity: Option<u32>,
    /// How early a call may be of a cell rate, in place of a burst.
    #[serde(alias = "tau_ms")]
    tolerance_ms: Option<f64>,
    max_wait_ms: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    op: Op,
    #[serde(alias = "limit")]
    permits: Option<u32>,
    max_wait_ms: Option<f64>,
    expect: Option<Became>,
    wait_ms: Option<f64>,
    retry_after_ms: Option<f64>,
    available: Option<i64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Query,
    SetLimit,
    SetMaxWait,
    Drain,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Became {
    Permitted,
    Rejected,
}

/// A call that waits, and how long it should.
struct Waiting {
    step: usize,
    wanted: Option<f64>,
    task: JoinHandle<Duration>,
}

pub(crate) async fn replay(body: Value) -> Result<(), Miss> {
    let case: Case = read(body)?;
    let timeline = Timeline::start();
    let mut config = case.config;
    let mut limiter = RateLimiter::new("peer", limit(case.kind, &config)?);
    // Where nothing bounds a wait a debt may be of any length; the others refuse at once.
    limiter = limiter.wait(match (case.kind, config.max_wait_ms) {
        (_, Some(wait)) => millis(wait),
        (Kind::Bursty | Kind::Smooth, None) => Duration::MAX,
        _ => Duration::ZERO,
    });
    let mut changes = None;
    let mut waiting = Vec::new();
    for (i, step) in case.steps.iter().enumerate() {
        let at = |miss: Miss| miss.at(format_args!("step {i} ({:?})", step.op));
        // A cycle that has begun keeps its permits.
        if let Some((then, limit)) = changes.take_if(|(then, _)| *then <= step.at_ms) {
            timeline.sleep_until(then).await;
            limiter.reconfigure(limit);
        }
        timeline.sleep_until(step.at_ms).await;
        match step.op {
            Op::Acquire => {
                let asked = match step.max_wait_ms {
                    Some(wait) => limiter.clone().wait(millis(wait)),
                    None => limiter.clone(),
                };
                let asked = asked.acquire(step.permits.unwrap_or(1));
                waiting.extend(ask(i, step, asked).await.map_err(at)?);
            }
            Op::SetLimit => {
                config.permits = step.permits.or(config.permits);
                let limit = limit(case.kind, &config)?;
                match (case.kind, config.period_ms) {
                    (Kind::Cycle, Some(period)) => {
                        let cycles = (step.at_ms as f64 / period).floor() + 1.0;
                        changes = Some(((cycles * period) as u64, limit));
                    }
                    _ => limiter.reconfigure(limit),
                }
            }
            Op::SetMaxWait => limiter.set_wait(millis(step.max_wait_ms.unwrap_or_default())),
            Op::Drain => limiter.drain(),
            Op::Query => {}
        }
        let available = limiter.available();
        same("available", available, step.available.unwrap_or(available)).map_err(at)?;
    }
    for call in waiting {
        let step = call.step;
        let wait = call.task.await.map_err(|e| Miss::Failed(e.to_string()))?;
        near("wait", Some(wait), call.wanted)
            .map_err(|miss| miss.at(format_args!("step {step}")))?;
    }
    Ok(())
}

fn limit(kind: Kind, config: &Config) -> Result<Limit, Miss> {
    let missing = |what: &str| Miss::Unsupported(format!("a {kind:?} without {what}"));
    let (permits, period) = match (config.permits, config.period_ms, config.interval_ms) {
        (Some(permits), Some(period), _) => (permits, period),
        (_, None, Some(interval)) => (1, interval),
        _ => return Err(missing("a rate")),
    };
    let limit = Limit::new(permits, millis(period));
    Ok(match kind {
        Kind::Cycle | Kind::Bursty => limit.in_steps(),
        Kind::Smooth => Limit::new(1, millis(period) / permits).in_steps(),
        Kind::TokenBucket => {
            let capacity = config.capacity.ok_or_else(|| missing("a capacity"))?;
            limit.burst(capacity).in_steps()
        }
        Kind::Pacing => limit.burst(1),
        Kind::SlidingLog => limit.sliding(),
        Kind::Gcra => {
            let early = |tolerance: f64| (tolerance * f64::from(permits) / period) as u32 + 1;
            let burst = config.capacity.or(config.tolerance_ms.map(early));
            limit.burst(burst.unwrap_or(permits))
        }
    })
}

/// Looks at what is known at once; what has to wait is looked at when it is through.
async fn ask(i: usize, step: &Step, acquire: Acquire) -> Result<Option<Waiting>, Miss> {
    let mut acquire = Box::pin(acquire);
    let (became, wait, hint) = match poll_once(&mut acquire).await {
        Poll::Ready(Ok(())) => (Became::Permitted, Some(Duration::ZERO), None),
        Poll::Ready(Err(rejected)) => (Became::Rejected, None, rejected.wait_hint()),
        Poll::Pending => (Became::Permitted, None, None),
    };
    same("the call", became, step.expect.unwrap_or(became))?;
    if became == Became::Rejected {
        near("retry after", hint, step.retry_after_ms)?;
        return Ok(None);
    }
    if wait.is_some() {
        near("wait", wait, step.wait_ms)?;
        return Ok(None);
    }
    let asked = clock::now();
    Ok(Some(Waiting {
        step: i,
        wanted: step.wait_ms,
        task: tokio::spawn(async move {
            // One that is given up after all waited for ever.
            match acquire.await {
                Ok(()) => clock::now() - asked,
                Err(_) => Duration::MAX,
            }
        }),
    }))
}

fn near(what: &str, got: Option<Duration>, wanted: Option<f64>) -> Result<(), Miss> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    match got.map(|got| got.as_secs_f64() * 1e3) {
        Some(got) if (got - wanted).abs() <= 1.0 => Ok(()),
        got => Err(Miss::Failed(format!(
            "{what} is {got:?} ms instead of {wanted}"
        ))),
    }
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}
