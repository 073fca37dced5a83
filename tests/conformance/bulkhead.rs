//! `bulkhead/1`: slots taken through the handle and kept until a step says so.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use buttress::layers::bulkhead::{Acquire, Bulkhead, Order, Permit};

use crate::report::{Miss, same};
use crate::timeline::{Timeline, poll_once};
use crate::vector::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: Config,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    limit: usize,
    max_wait_ms: Option<u64>,
    queue_limit: Option<usize>,
    #[serde(default)]
    queue_order: QueueOrder,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum QueueOrder {
    #[default]
    Fifo,
    Lifo,
    LifoRejectNew,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: u64,
    op: Op,
    call: Option<String>,
    limit: Option<usize>,
    expect: Option<Became>,
    available: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Complete,
    Cancel,
    SetLimit,
    Check,
    Query,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Became {
    Permitted,
    Queued,
    Rejected,
}

/// A call, by what became of it.
enum Call {
    Queued(Pin<Box<Acquire>>),
    Permitted(Permit),
    Rejected,
}

pub(crate) async fn replay(body: Value) -> Result<(), Miss> {
    let case: Case = read(body)?;
    let bulkhead = build(&case.config)?;
    let timeline = Timeline::start();
    // In the order of their names only to be the same each time: each is polled whenever something happened.
    let mut calls = BTreeMap::new();
    for (i, step) in case.steps.iter().enumerate() {
        timeline.reach(timeline.at(step.at_ms)).await;
        settle(&mut calls).await;
        let done = act(step, &bulkhead, &mut calls);
        settle(&mut calls).await;
        done.and_then(|()| check(step, &bulkhead, &calls))
            .map_err(|miss| miss.at(format_args!("step {i} ({:?})", step.op)))?;
    }
    Ok(())
}

fn build(config: &Config) -> Result<Bulkhead, Miss> {
    let bulkhead = Bulkhead::new("peer", config.limit);
    // Without a longest wait those who wait do so for ever.
    let wait = config
        .max_wait_ms
        .map_or(Duration::MAX, Duration::from_millis);
    let length = config.queue_limit.unwrap_or(usize::MAX);
    if wait.is_zero() || length == 0 {
        return Ok(bulkhead);
    }
    let bulkhead = bulkhead.queue(length, wait);
    Ok(bulkhead.order(match config.queue_order {
        QueueOrder::Fifo => Order::OldestFirst,
        QueueOrder::Lifo => Order::NewestFirstDropOldest,
        QueueOrder::LifoRejectNew => Order::NewestFirst,
    }))
}

fn act(step: &Step, bulkhead: &Bulkhead, calls: &mut BTreeMap<String, Call>) -> Result<(), Miss> {
    let name = step.call.clone().unwrap_or_default();
    match step.op {
        Op::Acquire => {
            calls.insert(name, Call::Queued(Box::pin(bulkhead.acquire())));
        }
        Op::Complete => match calls.remove(&name) {
            Some(Call::Permitted(permit)) => drop(permit),
            _ => return Err(Miss::Failed(format!("`{name}` is not under way"))),
        },
        Op::Cancel => drop(calls.remove(&name)),
        Op::SetLimit => bulkhead.resize(step.limit.unwrap_or_default()),
        Op::Check | Op::Query => {}
    }
    Ok(())
}

/// Polls those who wait.
async fn settle(calls: &mut BTreeMap<String, Call>) {
    for call in calls.values_mut() {
        let Call::Queued(acquire) = call else {
            continue;
        };
        match poll_once(acquire).await {
            Poll::Pending => {}
            Poll::Ready(Ok(permit)) => *call = Call::Permitted(permit),
            Poll::Ready(Err(_)) => *call = Call::Rejected,
        }
    }
}

fn check(step: &Step, bulkhead: &Bulkhead, calls: &BTreeMap<String, Call>) -> Result<(), Miss> {
    if let (Some(wanted), Some(name)) = (step.expect, &step.call) {
        let became = match calls.get(name) {
            Some(Call::Queued(_)) => Became::Queued,
            Some(Call::Permitted(_)) => Became::Permitted,
            Some(Call::Rejected) => Became::Rejected,
            None => return Err(Miss::Failed(format!("`{name}` is unknown"))),
        };
        same("the call", became, wanted)?;
    }
    let available = bulkhead.limit().saturating_sub(bulkhead.in_flight());
    same("available", available, step.available.unwrap_or(available))
}
