//! A client offers a peer twice what it can do for a minute, with its retries on: what a limit that finds itself, a
//! priority and a retry budget make of it, beside the same client without them. In virtual time, from a seed.
// A test may; the lints know test functions alone, not their helpers.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use buttress::algo::Rng;
use buttress::algo::limit::{Adaptive, Aimd, Gradient, Gradient2, Limit, Vegas, Windowed};
use buttress::budget::RetryBudget;
use buttress::layers::concurrency::{ConcurrencyLimit, Priority};
use buttress::layers::retry::RetryLayer;
use buttress::layers::timeout::TimeoutLayer;
use buttress::rng::{self, ThreadRng};
use buttress::{BoxError, clock};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

const WORKERS: usize = 32;
const WORK: Duration = Duration::from_millis(40);
/// Calls a second that the peer can do.
const CAPACITY: f64 = 800.0;
/// Nobody waits longer for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
const OVERLOAD: Duration = Duration::from_secs(60);
const RECOVERY: Duration = Duration::from_secs(20);
/// The share of retries that a budget allows if nothing else is said.
const BUDGET: f64 = 0.2;
const SEEDS: [u64; 3] = [7, 11, 2026];

/// So many workers and a line without a bound, which works off what nobody waits for any more as well.
#[derive(Clone)]
struct Peer(Arc<Mutex<Workers>>);

struct Workers {
    /// When each is free.
    free: BinaryHeap<Reverse<Instant>>,
    sent: Vec<Instant>,
}

impl Peer {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Workers {
            free: vec![Reverse(clock::now()); WORKERS].into(),
            sent: Vec::new(),
        })))
    }

    fn sent_before(&self, end: Instant) -> usize {
        let workers = self.0.lock().unwrap();
        workers.sent.iter().filter(|&&at| at < end).count()
    }
}

impl Service<Priority> for Peer {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Priority) -> Self::Future {
        let now = clock::now();
        let mut workers = self.0.lock().unwrap();
        workers.sent.push(now);
        let Reverse(free) = workers.free.pop().unwrap();
        // Between half and one and a half times the mean.
        let done = free.max(now) + WORK.mul_f64(0.5 + ThreadRng.unit());
        workers.free.push(Reverse(done));
        Box::pin(async move {
            clock::until(done).await;
            Ok(())
        })
    }
}

type Client = BoxCloneSyncService<Priority, (), BoxError>;

fn protected(peer: Peer, limit: impl Limit + Send + 'static) -> (Client, ConcurrencyLimit) {
    let limit = ConcurrencyLimit::new("peer", limit).queue(1.0, 2.0, PATIENCE / 5);
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(3))
        .layer(limit.layer().priority(|priority: &Priority| *priority))
        .layer(TimeoutLayer::new(PATIENCE))
        .service(peer);
    (BoxCloneSyncService::new(client), limit)
}

fn bare(peer: Peer, budget: Option<RetryBudget>) -> Client {
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(3).budget(budget))
        .layer(TimeoutLayer::new(PATIENCE))
        .service(peer);
    BoxCloneSyncService::new(client)
}

#[derive(Clone, Copy)]
struct Call {
    at: Instant,
    priority: Priority,
    ended: Instant,
    good: bool,
}

#[derive(Debug)]
struct Report {
    /// Answers a second under overload, as a share of the capacity.
    goodput: f64,
    /// The share of calls of high priority that were answered under overload.
    high: f64,
    low: f64,
    /// Calls that reached the peer under overload, for each call made.
    sent: f64,
    /// How long after the overload's end the last call failed.
    recovered: Duration,
}

/// Twice the capacity for a minute, a fifth of it of high priority; then half the capacity.
async fn run(peer: Peer, client: Client) -> Report {
    let begin = clock::now();
    let overload_ends = begin + OVERLOAD;
    let end = overload_ends + RECOVERY;
    let mut calls = Vec::new();
    let mut at = begin;
    while at < end {
        let rate = if at < overload_ends { 2.0 } else { 0.5 } * CAPACITY;
        // A Poisson process.
        at += Duration::from_secs_f64(-(1.0 - ThreadRng.unit()).ln() / rate);
        clock::until(at).await;
        let priority = if ThreadRng.unit() < 0.2 {
            Priority::High
        } else {
            Priority::Low
        };
        let client = client.clone();
        calls.push(tokio::spawn(async move {
            let at = clock::now();
            let good = client.oneshot(priority).await.is_ok();
            Call {
                at,
                priority,
                ended: clock::now(),
                good,
            }
        }));
    }
    let mut made = Vec::new();
    for call in calls {
        made.push(call.await.unwrap());
    }
    let overload: Vec<_> = made.iter().filter(|call| call.at < overload_ends).collect();
    let answered = made
        .iter()
        .filter(|call| call.good && call.ended < overload_ends)
        .count();
    let share = |priority| {
        let of: Vec<_> = overload
            .iter()
            .filter(|call| call.priority == priority)
            .collect();
        of.iter().filter(|call| call.good).count() as f64 / of.len() as f64
    };
    let last_failed = made
        .iter()
        .filter(|call| !call.good)
        .map(|call| call.at)
        .max();
    Report {
        goodput: answered as f64 / (CAPACITY * OVERLOAD.as_secs_f64()),
        high: share(Priority::High),
        low: share(Priority::Low),
        sent: peer.sent_before(overload_ends) as f64 / overload.len() as f64,
        recovered: last_failed.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(overload_ends)
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn under_twice_its_capacity_a_peer_stays_busy_with_what_matters() {
    heading();
    for seed in SEEDS {
        let peer = seeded(seed);
        let (client, _) = protected(peer.clone(), adaptive());
        let with = run(peer, client).await;
        row("limit, priorities, budget", seed, &with);
        let peer = seeded(seed);
        let without = run(peer.clone(), bare(peer, None)).await;
        row("none of them", seed, &without);

        assert!(with.goodput >= 0.95, "{with:?}");
        assert!(with.high >= 0.99 && with.high > with.low, "{with:?}");
        assert!(with.sent <= 1.0 + BUDGET, "{with:?}");
        assert!(with.recovered <= Duration::from_secs(5), "{with:?}");

        assert!(without.goodput < 0.1, "{without:?}");
        assert!(without.high < 0.1 && without.low < 0.1, "{without:?}");
        assert!(without.sent > 2.0, "{without:?}");
        assert!(without.recovered > Duration::from_secs(5), "{without:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_alone_bounds_what_is_sent_and_does_not_keep_the_peer() {
    heading();
    for seed in SEEDS {
        let peer = seeded(seed);
        let report = run(peer.clone(), bare(peer, Some(RetryBudget::default()))).await;
        row("budget alone", seed, &report);
        // The floor of a budget is three retries a second more.
        let floor = 3.0 / (2.0 * CAPACITY);
        assert!(report.sent <= 1.0 + BUDGET + floor, "{report:?}");
        assert!(report.sent >= 1.1, "there were retries: {report:?}");
        assert!(report.goodput < 0.5, "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_limit_keeps_the_peer() {
    heading();
    let short = |limit| Windowed::new(limit).length(WORK, Duration::from_secs(1));
    let limits: [(&str, Box<dyn Limit + Send>); 4] = [
        ("aimd", Box::new(Aimd::new(20).timeout(3 * WORK))),
        ("vegas", Box::new(Vegas::new(20))),
        (
            "gradient, windowed",
            Box::new(Windowed::new(Gradient::new(20)).length(WORK, Duration::from_secs(1))),
        ),
        ("gradient2, windowed", Box::new(short(Gradient2::new(20)))),
    ];
    for (name, limit) in limits {
        let peer = seeded(SEEDS[0]);
        let (client, _) = protected(peer.clone(), limit);
        let report = run(peer, client).await;
        row(name, SEEDS[0], &report);
        assert!(report.goodput >= 0.9, "{name}: {report:?}");
        assert!(report.high >= 0.99, "{name}: {report:?}");
        assert!(report.sent <= 1.0 + BUDGET, "{name}: {report:?}");
        assert!(
            report.recovered <= Duration::from_secs(5),
            "{name}: {report:?}"
        );
    }
}

/// A peer in a run that can be repeated.
fn seeded(seed: u64) -> Peer {
    rng::seed(seed);
    Peer::new()
}

fn heading() {
    println!("client                     seed  goodput     high      low  sent  recovered in");
}

fn row(client: &str, seed: u64, report: &Report) {
    println!(
        "{client:25} {seed:5} {:7.1}% {:7.1}% {:7.1}% {:5.2} {:>13?}",
        100.0 * report.goodput,
        100.0 * report.high,
        100.0 * report.low,
        report.sent,
        report.recovered,
    );
}

/// Windows of a quarter of a second: at this rate they hold samples enough.
fn adaptive() -> Adaptive {
    Adaptive::new(20).window(Duration::from_millis(250), Duration::from_secs(30), 50)
}
