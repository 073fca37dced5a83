//! tower's laws × every layer. A row is a layer and a function that says how much it holds at the moment.
//!
//! A row's layer must let an answer through as it is, an error too (after retries, if it retries), and must hold as
//! little as it can be set to, so that anything lost shows in the next call.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::algo::breaker;
use buttress::algo::faults::Faults;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Aimd;
use buttress::layers::bulkhead::{Bulkhead, Bulkheads, Settings};
use buttress::layers::chaos::Chaos;
use buttress::layers::circuit_breaker::{CircuitBreaker, CircuitBreakers};
use buttress::layers::coalesce::{Batch, BatchLayer, CoalesceLayer};
use buttress::layers::concurrency::ConcurrencyLimit;
use buttress::layers::fallback::{FallbackLayer, LastGood};
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::RetryLayer;
use buttress::layers::throttle::Throttle;
use buttress::layers::timeout::TimeoutLayer;
use buttress::pipeline::PipelineLayer;
use buttress::transport::http::deadline::{ReceiveDeadlineLayer, SendDeadlineLayer};
use buttress::transport::redis::{Redis, SharedLimiter};
use buttress::{BoxError, Deadline, Outcome};
use tower::util::MapRequest;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

macro_rules! contract {
    ($($name:ident: $row:expr;)*) => { $(mod $name { use super::*; laws! { $row;
        a_call_reaches_only_an_inner_service_that_was_made_ready
        one_call_is_one_call_and_its_answer_comes_through
        an_error_of_readiness_comes_through_with_its_causes
        an_error_of_the_call_comes_through_with_its_causes
        clones_are_independent
        a_ready_service_dropped_gives_back_what_it_held
        a_future_never_polled_gives_back_what_it_held
        a_call_dropped_at_any_await_point_gives_back_what_it_held
        a_finished_call_holds_nothing_though_its_future_lives
        a_panic_comes_through_and_gives_back_what_was_held
    } })* };
}

macro_rules! laws {
    ($row:expr; $($law:ident)*) => { $(
        #[tokio::test(start_paused = true)]
        async fn $law() {
            let (layer, held) = $row;
            super::$law(layer, held).await;
        }
    )* };
}

contract! {
    timeout: (TimeoutLayer::new(HOUR), || 0);
    timeout_over_readiness: (TimeoutLayer::new(HOUR).cover_readiness(), || 0);
    timeout_by_request: {
        let limit = |request: &u8| (*request > 1).then_some(2 * HOUR);
        (TimeoutLayer::new(HOUR).by(limit).cover_readiness(), || 0)
    };
    bulkhead: {
        let bulkhead = Bulkhead::new("contract", 1);
        (bulkhead.layer(), move || bulkhead.in_flight())
    };
    bulkhead_with_a_queue: {
        let bulkhead = Bulkhead::new("contract", 1).queue(1, HOUR);
        (bulkhead.layer(), move || bulkhead.in_flight() + bulkhead.waiting())
    };
    bulkhead_partition: {
        let bulkhead = Bulkhead::new("contract", 1).partitions([("only", 1.0)]);
        (bulkhead.partition("only").layer(), move || bulkhead.in_flight())
    };
    bulkhead_partition_by_request: {
        let bulkhead = Bulkhead::new("contract", 1).partitions([("only", 1.0)]);
        let layer = bulkhead.layer().partition_by(|_: &u8| Some("only"));
        (layer, move || bulkhead.in_flight())
    };
    bulkhead_by_key: {
        let bulkheads = Bulkheads::new("contract", Settings::new(1), 1);
        (bulkheads.layer(|_: &u8| 0), move || under_way(&bulkheads))
    };
    bulkhead_by_key_with_a_queue: {
        let bulkheads = Bulkheads::new("contract", Settings::new(1).queue(1, HOUR), 1);
        (bulkheads.layer(|_: &u8| 0), move || under_way(&bulkheads))
    };
    concurrency: {
        let limit = ConcurrencyLimit::new("contract", stays(1));
        (limit.layer(), move || limit.figures().in_flight)
    };
    concurrency_with_a_queue: {
        let limit = ConcurrencyLimit::new("contract", stays(1)).queue(1.0, 1.0, HOUR);
        (limit.layer(), move || limit.figures().in_flight + limit.figures().waiting)
    };
    throttle: {
        let hardly = buttress::algo::throttle::Throttle::default().most(f64::MIN_POSITIVE);
        (Throttle::new("contract", hardly).layer(), || 0)
    };
    circuit_breaker: (CircuitBreaker::new("contract", never_opens()).layer(), || 0);
    circuit_breaker_half_open: half_open();
    circuit_breaker_by_key: {
        let breakers = CircuitBreakers::new("contract", never_opens(), 1);
        (breakers.layer(|request: &u8| *request), || 0)
    };
    rate_limit: (RateLimiter::new("contract", Limit::new(1_000_000, HOUR)).layer(), || 0);
    rate_limit_with_a_wait: {
        let limiter = RateLimiter::new("contract", Limit::new(60, HOUR).burst(3)).wait(HOUR);
        (limiter.layer(), move || limiter.waiting())
    };
    rate_limit_by_key: {
        let limiter = RateLimiter::per_key("contract", Limit::new(1_000_000, HOUR), 1);
        (limiter.layer_by(|request: &u8| *request), || 0)
    };
    rate_limit_that_heeds_its_peer: {
        let limiter = RateLimiter::new("contract", Limit::new(60, HOUR).burst(3)).wait(HOUR);
        let overloaded = |result: Result<&u8, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Overload(Some(Duration::ZERO)),
        };
        (limiter.layer().classify(overloaded), move || limiter.waiting())
    };
    rate_limit_shared_with_a_server_that_is_gone: {
        let redis = Redis::new("redis://127.0.0.1:9").unwrap();
        let limit = Limit::new(1_000_000, HOUR);
        let limiter = SharedLimiter::new("contract", limit, &redis);
        limiter.acquire(1).await.unwrap();
        (limiter.layer(), || 0)
    };
    concurrency_that_is_fair: {
        let limit = ConcurrencyLimit::new("contract", stays(1)).queue(1.0, 1.0, HOUR);
        let layer = limit.layer().fair_by(|request: &u8| *request);
        (layer, move || limit.figures().in_flight + limit.figures().waiting)
    };
    chaos: (Chaos::new("contract", 1).layer(), || 0);
    chaos_with_latency: {
        let chaos = Chaos::new("contract", 1);
        chaos.set(Faults::new().latency(1.0, MINUTE..=MINUTE));
        (chaos.layer(), || 0)
    };
    pipeline: pipeline(Bulkhead::new("contract", 1));
    pipeline_with_a_queue: pipeline(Bulkhead::new("contract", 1).queue(1, HOUR));
    retry: (RetryLayer::new(3), || 0);
    retry_once: (RetryLayer::new(1), || 0);
    hedge: (HedgeLayer::new(HOUR), || 0);
    hedge_that_fails_on: (HedgeLayer::default().attempts(4).budget(None), || 0);
    hedge_once: (HedgeLayer::new(HOUR).attempts(1), || 0);
    fallback: (FallbackLayer::from_fn(|failed: Result<u8, BoxError>| failed), || 0);
    fallback_on_the_last_good_answer: {
        // Without a key nothing is answered: a failure that is answered would be none.
        let last = LastGood::new(|_: &u8| None::<u8>);
        (last.layer(), || 0)
    };
    coalesce: (CoalesceLayer::new(|request: &u8| *request), || 0);
    batch: (BatchLayer::new(One).size(1), || 0);
    receive_deadline: (over_http(ReceiveDeadlineLayer::new().most(HOUR)), || 0);
    send_deadline: (over_http(SendDeadlineLayer::new()), || 0);
}

/// A layer for HTTP around a service that is asked for bodies alone. Each request has a deadline.
fn over_http<L>(layer: L) -> impl Layer<Inner, Service: Subject>
where
    L: Layer<
            MapRequest<Inner, fn(http::Request<u8>) -> u8>,
            Service: Service<
                http::Request<u8>,
                Response = u8,
                Error = BoxError,
                Future: Send + 'static,
            > + Clone
                         + Send
                         + 'static,
        >,
{
    let bodies: fn(http::Request<u8>) -> u8 = http::Request::into_body;
    ServiceBuilder::new()
        .map_request(|body: u8| {
            let mut request = http::Request::new(body);
            request.extensions_mut().insert(Deadline::within(HOUR));
            request
        })
        .layer(layer)
        .map_request(bodies)
}

/// A batch of one.
struct One;

impl Batch for One {
    type Request = u8;
    type Response = u8;
    type Merged = u8;
    type Answer = u8;

    fn merge(&self, requests: &[u8]) -> u8 {
        requests[0]
    }

    fn split(&self, answer: u8, _: &[u8]) -> Vec<Option<u8>> {
        vec![Some(answer)]
    }
}

fn under_way(bulkheads: &Bulkheads<u8>) -> usize {
    let bulkhead = bulkheads.find(&0);
    bulkhead.map_or(0, |it| it.in_flight() + it.waiting())
}

fn stays(limit: usize) -> Aimd {
    Aimd::new(limit).within(limit..=limit)
}

fn pipeline(bulkhead: Bulkhead) -> (impl Layer<Inner, Service: Subject>, impl Fn() -> usize) {
    let layer = PipelineLayer::new(
        FallbackLayer::from_fn(|failed: Result<u8, BoxError>| failed),
        RetryLayer::new(3),
        CircuitBreaker::new("contract", never_opens()).layer(),
        bulkhead.layer(),
        TimeoutLayer::new(HOUR),
    );
    (layer, move || bulkhead.in_flight() + bulkhead.waiting())
}

fn never_opens() -> breaker::Settings {
    breaker::Settings::default().minimum_calls(100)
}

/// A breaker that stays half-open whatever a call says, with one probe, and whether that is out.
fn half_open() -> (impl Layer<Inner, Service: Subject>, impl Fn() -> usize) {
    let settings = breaker::Settings::default()
        .half_open_calls(1)
        .half_open_limit(HOUR)
        .cancelled(breaker::Cancelled::Ignored);
    let breaker = CircuitBreaker::new("contract", settings);
    breaker.half_open();
    let layer = breaker
        .layer()
        .classify(|_: Result<&u8, &BoxError>| Outcome::Ignored);
    let is_out = move || {
        // A panic counts as a failure.
        if breaker.state() == breaker::State::Open {
            breaker.half_open();
        }
        match breaker.try_acquire() {
            Ok(probe) => {
                probe.release();
                0
            }
            Err(_) => 1,
        }
    };
    (layer, is_out)
}

/// A service under test. That its futures are `Send` is a law as well, and held here.
trait Subject:
    Service<u8, Response = u8, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}

impl<S> Subject for S where
    S: Service<u8, Response = u8, Error = BoxError, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

async fn a_call_reaches_only_an_inner_service_that_was_made_ready<L>(
    layer: L,
    _: impl Fn() -> usize,
) where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, _) = inner(Plan::default());
    let mut service = layer.layer(inner);
    for request in 0..3 {
        assert_eq!(
            service.ready().await.unwrap().call(request).await.unwrap(),
            request
        );
    }
    // A clone is not ready because its original is, and the original is no less so for having been cloned.
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert_eq!(service.call(3).await.unwrap(), 3);
    assert_eq!(clone.ready().await.unwrap().call(4).await.unwrap(), 4);
}

async fn one_call_is_one_call_and_its_answer_comes_through<L>(layer: L, _: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, backend) = inner(Plan::default());
    assert_eq!(layer.layer(inner).oneshot(7).await.unwrap(), 7);
    assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
}

async fn an_error_of_readiness_comes_through_with_its_causes<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let plan = Plan {
        end: End::NotReady,
        ..Plan::default()
    };
    fails_with_its_causes(layer, held, plan).await;
}

async fn an_error_of_the_call_comes_through_with_its_causes<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let plan = Plan {
        end: End::Fail,
        ..Plan::default()
    };
    fails_with_its_causes(layer, held, plan).await;
}

async fn fails_with_its_causes<L>(layer: L, held: impl Fn() -> usize, plan: Plan)
where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, backend) = inner(plan);
    let service = layer.layer(inner);
    let error = service.clone().oneshot(0).await.unwrap_err();
    let mut causes = std::iter::successors(Some(&*error as &dyn std::error::Error), |e| e.source());
    assert!(causes.any(|cause| cause.is::<Root>()), "cut at {error:?}");
    backend.is_whole(service, held).await;
}

async fn clones_are_independent<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, backend) = inner(Plan::default());
    let service = layer.layer(inner);
    let mut ready: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut ready {
        clone.ready().await.unwrap();
    }
    // One that waits for readiness and goes takes nothing from the others.
    let mut leaves = service.clone();
    let _ = leaves.poll_ready(&mut Context::from_waker(Waker::noop()));
    drop(leaves);
    for (request, clone) in (0..).zip(&mut ready) {
        assert_eq!(clone.call(request).await.unwrap(), request);
    }
    drop(ready);
    backend.is_whole(service, held).await;
}

async fn a_ready_service_dropped_gives_back_what_it_held<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, backend) = inner(Plan::default());
    let service = layer.layer(inner);
    service.clone().ready().await.unwrap();
    backend.is_whole(service, held).await;
}

async fn a_future_never_polled_gives_back_what_it_held<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    let (inner, backend) = inner(Plan::default());
    let service = layer.layer(inner);
    let mut clone = service.clone();
    drop(clone.ready().await.unwrap().call(0));
    drop(clone);
    backend.is_whole(service, held).await;
}

async fn a_call_dropped_at_any_await_point_gives_back_what_it_held<L>(
    layer: L,
    held: impl Fn() -> usize,
) where
    L: Layer<Inner, Service: Subject>,
{
    let mut cx = Context::from_waker(Waker::noop());
    for end in [End::Answer, End::Fail] {
        for pauses in 0..4 {
            let (inner, backend) = inner(Plan { pauses, end });
            let service = layer.layer(inner);
            for polls in 0..10 {
                let mut call = Box::pin(service.clone().oneshot(0));
                let done = (0..polls).any(|_| call.as_mut().poll(&mut cx).is_ready());
                drop(call);
                backend.is_whole(service.clone(), &held).await;
                if done {
                    break;
                }
            }
        }
    }
}

async fn a_finished_call_holds_nothing_though_its_future_lives<L>(
    layer: L,
    held: impl Fn() -> usize,
) where
    L: Layer<Inner, Service: Subject>,
{
    for end in [End::Answer, End::Fail] {
        let (inner, backend) = inner(Plan {
            end,
            ..Plan::default()
        });
        let mut service = layer.layer(inner);
        let mut call = pin!(service.ready().await.unwrap().call(0));
        assert_eq!(call.as_mut().await.is_ok(), end == End::Answer);
        backend.is_whole(service, &held).await;
    }
}

async fn a_panic_comes_through_and_gives_back_what_was_held<L>(layer: L, held: impl Fn() -> usize)
where
    L: Layer<Inner, Service: Subject>,
{
    for end in [End::PanicInCall, End::PanicInFuture] {
        let (inner, backend) = inner(Plan {
            end,
            ..Plan::default()
        });
        let service = layer.layer(inner);
        let mut call = Box::pin(service.clone().oneshot(0));
        let mut cx = Context::from_waker(Waker::noop());
        let panic = (0..10)
            .find_map(|_| {
                catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut cx).is_ready())).err()
            })
            .expect("a panic, not an answer");
        assert_eq!(panic.downcast_ref(), Some(&PANIC));
        drop(call);
        backend.is_whole(service, &held).await;
    }
}

/// How the inner service behaves.
#[derive(Clone, Copy)]
struct Plan {
    /// How often it is pending before it is ready, and again before a call ends.
    pauses: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Answer,
    Fail,
    NotReady,
    PanicInCall,
    PanicInFuture,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pauses: 1,
            end: End::Answer,
        }
    }
}

/// What all clones of an inner service share.
struct Backend {
    plan: Mutex<Plan>,
    calls: AtomicUsize,
    /// Calls under way and clones that were made ready and not called since.
    held: AtomicUsize,
}

impl Backend {
    /// Nothing is held, by the layer or of the backend, and the next call goes through.
    async fn is_whole(&self, service: impl Subject, held: impl Fn() -> usize) {
        let plan = std::mem::take(&mut *self.plan.lock().unwrap());
        assert_eq!(held(), 0, "the layer holds on");
        assert_eq!(
            self.held.load(Ordering::SeqCst),
            0,
            "the inner service is held on to"
        );
        assert_eq!(service.oneshot(9).await.unwrap(), 9);
        *self.plan.lock().unwrap() = plan;
    }

    fn plan(&self) -> Plan {
        *self.plan.lock().unwrap()
    }

    fn hold(self: &Arc<Self>) -> Hold {
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(self))
    }
}

struct Hold(Arc<Backend>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

fn inner(plan: Plan) -> (Inner, Arc<Backend>) {
    let backend = Arc::new(Backend {
        plan: Mutex::new(plan),
        calls: AtomicUsize::new(0),
        held: AtomicUsize::new(0),
    });
    let inner = Inner {
        backend: Arc::clone(&backend),
        paused: 0,
        ready: None,
    };
    (inner, backend)
}

/// A service that insists on tower's laws. What it says of its readiness holds for this clone alone.
struct Inner {
    backend: Arc<Backend>,
    paused: usize,
    ready: Option<Hold>,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            paused: 0,
            ready: None,
        }
    }
}

impl Service<u8> for Inner {
    type Response = u8;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let plan = self.backend.plan();
        if self.ready.is_none() && self.paused < plan.pauses {
            self.paused += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if plan.end == End::NotReady {
            return Poll::Ready(Err(Failed.into()));
        }
        if self.ready.is_none() {
            self.ready = Some(self.backend.hold());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u8) -> Answer {
        let _ready = self
            .ready
            .take()
            .expect("called without having been made ready");
        self.paused = 0;
        let plan = self.backend.plan();
        if plan.end == End::PanicInCall {
            panic_any(PANIC);
        }
        self.backend.calls.fetch_add(1, Ordering::SeqCst);
        Answer {
            request,
            plan,
            paused: 0,
            running: Some(self.backend.hold()),
        }
    }
}

struct Answer {
    request: u8,
    plan: Plan,
    paused: usize,
    running: Option<Hold>,
}

impl Future for Answer {
    type Output = Result<u8, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.paused < self.plan.pauses {
            self.paused += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.running.take().expect("polled after it ended");
        match self.plan.end {
            End::Answer => Poll::Ready(Ok(self.request)),
            End::Fail => Poll::Ready(Err(Failed.into())),
            _ => panic_any(PANIC),
        }
    }
}

/// An error with a cause.
#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&Root)
    }
}

#[derive(Debug)]
struct Root;

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection reset")
    }
}

impl std::error::Error for Root {}

const PANIC: &str = "the inner service panicked";
