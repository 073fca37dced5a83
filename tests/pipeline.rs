//! The pipeline does what its layers do one inside the other.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::algo::backoff::{Backoff, Jitter};
use buttress::algo::breaker::{Cancelled, Settings};
use buttress::budget::RetryBudget;
use buttress::clock;
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::fallback::FallbackLayer;
use buttress::layers::retry::{Decision, RetryLayer, Rules};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::pipeline::PipelineLayer;
use buttress::{BoxError, Deadline, Outcome, Rejected};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// What became of what, and when, in milliseconds.
#[derive(Clone)]
struct Log {
    began: std::time::Instant,
    lines: Arc<Mutex<Vec<(u128, String)>>>,
}

impl Log {
    fn new() -> Self {
        Self {
            began: clock::now(),
            lines: Arc::default(),
        }
    }

    fn add(&self, line: String) {
        let at = (clock::now() - self.began).as_millis();
        self.lines.lock().unwrap().push((at, line));
    }

    /// In their order, but for those of one moment.
    fn take(&self) -> Vec<(u128, String)> {
        let mut lines = std::mem::take(&mut *self.lines.lock().unwrap());
        lines.sort();
        lines
    }
}

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        self.add(format!("{event:?}"));
    }
}

/// One attempt as the peer treats it.
#[derive(Clone, Debug)]
struct Step {
    readiness: Readiness,
    /// In milliseconds; none is an answer at once.
    takes: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Readiness {
    Ready,
    /// Once it is asked with a waker.
    Later,
    Fails,
    Panics,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Status(u16),
    Error,
    Panic,
    /// Before there is a future.
    PanicInCall,
    Never,
}

/// The peer: its attempts go by the steps, one after the other and again.
struct Peer {
    steps: Arc<Vec<Step>>,
    next: Arc<AtomicUsize>,
    ready: bool,
    log: Log,
}

impl Clone for Peer {
    fn clone(&self) -> Self {
        Self {
            steps: Arc::clone(&self.steps),
            next: Arc::clone(&self.next),
            ready: false,
            log: self.log.clone(),
        }
    }
}

impl Peer {
    fn step(&self) -> &Step {
        &self.steps[self.next.load(Relaxed) % self.steps.len()]
    }
}

impl Service<Call> for Peer {
    type Response = u16;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<u16, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.step().readiness {
            Readiness::Later if cx.waker().will_wake(std::task::Waker::noop()) => Poll::Pending,
            Readiness::Fails => {
                self.next.fetch_add(1, Relaxed);
                self.log.add("unready".to_owned());
                Poll::Ready(Err("unready".into()))
            }
            Readiness::Panics => {
                self.next.fetch_add(1, Relaxed);
                std::panic::resume_unwind(Box::new("panic"))
            }
            Readiness::Ready | Readiness::Later => {
                self.ready = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn call(&mut self, call: Call) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        let Step { takes, end, .. } = self.step().clone();
        self.next.fetch_add(1, Relaxed);
        let left = Deadline::current().map(|it| it.remaining(clock::now()).as_millis());
        self.log.add(format!("attempt {call:?}, {left:?} ms left"));
        if let End::PanicInCall = end {
            std::panic::resume_unwind(Box::new("panic"));
        }
        Box::pin(async move {
            if takes > 0 {
                clock::sleep(ms(takes)).await;
            }
            match end {
                End::Status(status) => Ok(status),
                End::Error => Err("broken".into()),
                End::Panic | End::PanicInCall => std::panic::resume_unwind(Box::new("panic")),
                End::Never => std::future::pending().await,
            }
        })
    }
}

#[derive(Clone, Debug)]
struct Call {
    id: u64,
    attempt: u32,
}

/// Tries again what is a failure; every fourth request cannot be sent twice.
#[derive(Clone)]
struct MyRules;

impl Rules<Call, u16, BoxError> for MyRules {
    fn replay(&self, call: &Call, _: u32) -> Option<Call> {
        (call.id % 4 != 3).then(|| call.clone())
    }

    fn mark(&self, call: &mut Call, attempt: u32) {
        call.attempt = attempt;
    }

    fn decide(&self, _: &Call, result: Result<&u16, &BoxError>) -> Decision {
        match result {
            Ok(429) => Decision::Retry {
                after: Some(ms(40)),
            },
            Ok(503) | Err(_) => Decision::Retry { after: None },
            Ok(_) => Decision::Done,
        }
    }

    fn is_refusal(&self, error: &BoxError) -> bool {
        Rejected::find(&**error).is_some_and(Rejected::never_sent)
    }
}

fn classify(result: Result<&u16, &BoxError>) -> Outcome {
    match result {
        Ok(429) => Outcome::Overload(Some(ms(40))),
        Ok(503) => Outcome::Failure,
        Ok(404) => Outcome::Ignored,
        Ok(418) => std::panic::resume_unwind(Box::new("panic")),
        Ok(_) => Outcome::Success,
        Err(error) => match Rejected::find(&**error) {
            Some(refused) if refused.never_sent() => Outcome::Ignored,
            _ => Outcome::Failure,
        },
    }
}

/// What the layers are told.
#[derive(Clone, Debug)]
struct World {
    attempts: u32,
    slots: usize,
    queue: bool,
    timed: bool,
    in_flight: bool,
    ignores_cancelled: bool,
    /// Whether all calls are made by one service value.
    one_value: bool,
    limit: Option<u64>,
    steps: Vec<Step>,
    calls: Vec<Caller>,
}

/// When it comes, and how long it waits and may take if that is bounded, in milliseconds.
#[derive(Clone, Debug)]
struct Caller {
    after: u64,
    patience: Option<u64>,
    deadline: Option<u64>,
}

/// Everything that is seen of it through a pipeline, or through the layers.
async fn seen(world: &World, as_one: bool) -> (Vec<(u128, String)>, String) {
    let log = Log::new();
    let mut settings = Settings::default()
        .minimum_calls(4)
        .time_window(ms(200))
        .open_wait(ms(60))
        .open_jitter(0.0)
        .half_open_calls(2);
    if world.timed {
        settings = settings.slow_calls(ms(20), 0.8);
    }
    if world.ignores_cancelled {
        settings = settings.cancelled(Cancelled::Ignored);
    }
    let breaker = CircuitBreaker::new("peer", settings).observe(log.clone());
    let mut bulkhead = Bulkhead::new("peer", world.slots).observe(log.clone());
    if world.queue {
        bulkhead = bulkhead.queue(2, ms(30));
    }
    let budget = match world.in_flight {
        true => RetryBudget::in_flight(0.5, 1),
        false => RetryBudget::new(0.5, 0),
    };
    let mut retry = RetryLayer::new(world.attempts)
        .rules(MyRules)
        .backoff(Backoff::constant(ms(7)).jitter(Jitter::None))
        .hint_spread(0.0)
        .budget(budget.clone())
        .observe(log.clone());
    if let Some(limit) = world.limit {
        retry = retry.give_up_after(ms(limit));
    }
    let fallback = FallbackLayer::from_request(
        |call: &Call| call.id,
        |id, failed: Result<u16, BoxError>| match (id % 3, failed) {
            (0, _) => Ok(203),
            (_, failed) => failed,
        },
    );
    let fallback = fallback
        .when(|result: Result<&u16, &BoxError>| matches!(result, Ok(500..) | Err(_)))
        .observe(log.clone());
    let timeout = TimeoutLayer::new(ms(50))
        .by(|call: &Call| (call.id % 5 == 4).then_some(ms(15)))
        .observe(log.clone());
    let peer = Peer {
        steps: Arc::new(world.steps.clone()),
        next: Arc::default(),
        ready: false,
        log: log.clone(),
    };
    let (breaker_layer, bulkhead_layer) = (breaker.layer().classify(classify), bulkhead.layer());
    if as_one {
        let layer = PipelineLayer::new(fallback, retry, breaker_layer, bulkhead_layer, timeout);
        callers(world, layer.layer(peer), &log).await;
    } else {
        let layers = ServiceBuilder::new()
            .layer(fallback)
            .layer(retry)
            .layer(breaker_layer)
            .layer(bulkhead_layer)
            .layer(timeout);
        callers(world, layers.service(peer), &log).await;
    }
    let left = format!(
        "{:?}, {} in flight, {} waiting, {} retries left",
        breaker.figures(),
        bulkhead.in_flight(),
        bulkhead.waiting(),
        budget.available()
    );
    (log.take(), left)
}

async fn callers<S>(world: &World, mut service: S, log: &Log)
where
    S: Service<Call, Response = u16, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let mut tasks = Vec::new();
    for (id, caller) in (0..).zip(&world.calls) {
        clock::sleep(ms(caller.after)).await;
        let call = Call { id, attempt: 0 };
        let made = || match world.one_value {
            true => service.call(call),
            false => service.clone().call(call),
        };
        let Ok(call) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(made)) else {
            log.add(format!("{id} panicked when it was made"));
            continue;
        };
        let deadline = caller.deadline.unwrap_or(100_000);
        let call = Deadline::within(ms(deadline)).scope(call);
        let (log, patience) = (log.clone(), ms(caller.patience.unwrap_or(100_000)));
        tasks.push(tokio::spawn(async move {
            // Its panic is seen in the order of things, as its end is.
            let call = std::panic::AssertUnwindSafe(call);
            match tokio::time::timeout(patience, call.catch_unwind()).await {
                Err(_) => log.add(format!("{id} was given up")),
                Ok(Err(_)) => log.add(format!("{id} panicked")),
                Ok(Ok(result)) => log.add(format!("{id}: {result:?}")),
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_left_in_no_queue() {
    let inner = tower::limit::ConcurrencyLimit::new(
        service_fn(|(): ()| std::future::pending::<Result<(), BoxError>>()),
        1,
    );
    let bulkhead = Bulkhead::new("peer", 2);
    let taken = Mutex::new(None);
    let fallback = FallbackLayer::from_request(
        // The last slot is gone by the time that the layers ask for it.
        |(): &()| *taken.lock().unwrap() = bulkhead.acquire().now_or_never(),
        |(), failed| failed,
    );
    let layer = PipelineLayer::new(
        fallback,
        RetryLayer::new(3),
        CircuitBreaker::new("peer", Settings::default()).layer(),
        bulkhead.layer(),
        TimeoutLayer::new(ms(60_000)),
    );
    let mut first = inner.clone();
    let under_way = first.ready().await.unwrap().call(());
    let mut service = layer.layer(inner.clone());
    let other = bulkhead.acquire().await.unwrap();
    assert!(service.call(()).now_or_never().unwrap().is_err());
    drop((other, under_way));
    // It is still there, and has no place in front of others.
    let mut next = inner.clone();
    assert!(next.ready().now_or_never().is_some());
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_waited_for_pays_into_the_budget_when_it_ends() {
    let budget = RetryBudget::new(1.0, 0);
    let layer = PipelineLayer::new(
        FallbackLayer::value(0),
        RetryLayer::new(3).budget(budget.clone()),
        CircuitBreaker::new("peer", Settings::default()).layer(),
        Bulkhead::new("peer", 1).layer(),
        TimeoutLayer::new(ms(60_000)),
    );
    // Longer than the budget remembers.
    let slow = layer.layer(service_fn(|answer: u16| async move {
        clock::sleep(ms(30_000)).await;
        Ok::<_, BoxError>(answer)
    }));
    assert_eq!(slow.oneshot(7).await.unwrap(), 7);
    assert_eq!(budget.available(), 1);
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn step() -> impl Strategy<Value = Step> {
    let readiness = prop_oneof![
        8 => Just(Readiness::Ready),
        1 => Just(Readiness::Later),
        1 => Just(Readiness::Fails),
        1 => Just(Readiness::Panics),
    ];
    let takes = prop_oneof![3 => Just(0), 2 => 1..30_u64, 1 => 45..60_u64];
    let end = prop_oneof![
        8 => Just(End::Status(200)),
        1 => Just(End::Status(404)),
        1 => Just(End::Status(418)),
        1 => Just(End::Status(429)),
        2 => Just(End::Status(503)),
        1 => Just(End::Status(500)),
        2 => Just(End::Error),
        1 => Just(End::Panic),
        1 => Just(End::PanicInCall),
        1 => Just(End::Never),
    ];
    (readiness, takes, end).prop_map(|(readiness, takes, end)| Step {
        readiness,
        takes,
        end,
    })
}

fn caller() -> impl Strategy<Value = Caller> {
    let after = prop_oneof![2 => Just(0), 3 => 0..20_u64, 1 => 60..100_u64];
    let patience = proptest::option::weighted(0.2, 0..60_u64);
    let deadline = proptest::option::weighted(0.2, 0..60_u64);
    (after, patience, deadline).prop_map(|(after, patience, deadline)| Caller {
        after,
        patience,
        deadline,
    })
}

fn world() -> impl Strategy<Value = World> {
    let flag = any::<bool>;
    let flags = (flag(), flag(), flag(), flag(), flag());
    (
        1..4_u32,
        1..5_usize,
        flags,
        proptest::option::weighted(0.2, 1..80_u64),
        proptest::collection::vec(step(), 1..12),
        proptest::collection::vec(caller(), 1..25),
    )
        .prop_map(|(attempts, slots, flags, limit, steps, calls)| {
            let (queue, timed, in_flight, ignores_cancelled, one_value) = flags;
            World {
                attempts,
                slots,
                queue,
                timed,
                in_flight,
                ignores_cancelled,
                one_value,
                limit,
                steps,
                calls,
            }
        })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn it_does_what_its_layers_do(world in world()) {
        let layers = run(seen(&world, false));
        let pipeline = run(seen(&world, true));
        prop_assert_eq!(layers, pipeline);
    }
}
