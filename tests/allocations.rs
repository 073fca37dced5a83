//! What a call that succeeds allocates on the heap: nothing, whatever layers it passes.

use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Aimd;
use buttress::algo::throttle;
use buttress::budget::RetryBudget;
use buttress::layers::bulkhead::{self, Bulkhead, Bulkheads};
use buttress::layers::chaos::Chaos;
use buttress::layers::circuit_breaker::{CircuitBreaker, CircuitBreakers};
use buttress::layers::coalesce::CoalesceLayer;
use buttress::layers::concurrency::ConcurrencyLimit;
use buttress::layers::fallback::{FallbackLayer, LastGood};
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::RetryLayer;
use buttress::layers::throttle::Throttle;
use buttress::layers::timeout::TimeoutLayer;
use buttress::pipeline::PipelineLayer;
use buttress::transport::http::deadline::{ReceiveDeadlineLayer, SendDeadlineLayer};
use buttress::{BoxError, Outcome};
use http::Request;
use tower::layer::util::Identity;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Holds for the first call of a service and for a later one, around an answer that is there and one that is not at
/// first, so that every timer is registered.
fn assert_no_allocation<L>(layer: L)
where
    L: Layer<Inner, Service: Service<u8, Response = u8, Error = BoxError>>,
{
    for pauses in [0, 1] {
        let mut service = layer.layer(Inner { pauses });
        for call in 1..=2 {
            let allocated = allocation_counter::measure(|| {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
                let mut answer = pin!(service.call(7));
                for _ in 0..pauses {
                    assert!(answer.as_mut().poll(&mut cx).is_pending());
                }
                assert!(matches!(answer.poll(&mut cx), Poll::Ready(Ok(7))));
            });
            assert_eq!(
                allocated.count_total, 0,
                "call {call}, {pauses} times pending"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_count_sees_an_allocation() {
    let boxed = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(7))));
    assert_eq!(boxed.count_total, 1);
    assert_no_allocation(Identity::new());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_allocates_nothing() {
    assert_no_allocation(TimeoutLayer::new(SECOND));
    assert_no_allocation(TimeoutLayer::new(SECOND).cover_readiness());
    assert_no_allocation(TimeoutLayer::new(SECOND).by(|_: &u8| Some(2 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_allocates_nothing() {
    assert_no_allocation(Bulkhead::new("orders", 1).layer());
    assert_no_allocation(Bulkhead::new("orders", 1).queue(1, SECOND).layer());
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_of_a_known_key_allocates_nothing() {
    let settings = bulkhead::Settings::new(1).queue(1, SECOND);
    let bulkheads = Bulkheads::new("tenants", settings, 100);
    // A thread that reads the keys for the first time makes itself known.
    drop(bulkheads.acquire(7).await.unwrap());
    drop(bulkheads.acquire(7).await.unwrap());
    assert_no_allocation(bulkheads.layer(|request: &u8| *request));
}

#[tokio::test(start_paused = true)]
async fn a_partition_by_request_allocates_nothing() {
    let bulkhead = Bulkhead::new("orders", 4).partitions([("live", 0.5)]);
    assert_no_allocation(bulkhead.layer().partition_by(|_: &u8| Some("live")));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_breaker_allocates_nothing() {
    let by_time = Settings::default();
    let by_count = Settings::default().count_window(1);
    for settings in [by_time, by_count] {
        assert_no_allocation(CircuitBreaker::new("orders", settings).layer());
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_time_takes_no_more_memory_for_forty_thousand_calls() {
    let breaker = CircuitBreaker::new("orders", Settings::default().slow_calls(SECOND, 1.0));
    let allocated = allocation_counter::measure(|| {
        for call in 0..40_000 {
            let permit = breaker.try_acquire().unwrap();
            permit.record(match call % 3 {
                0 => Outcome::Failure,
                _ => Outcome::Success,
            });
        }
    });
    assert_eq!(breaker.figures().calls.calls, 40_000);
    assert_eq!(allocated.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_breaker_of_a_known_key_allocates_nothing() {
    let breakers = CircuitBreakers::new("hosts", Settings::default(), 100);
    // A thread that reads the keys for the first time makes itself known.
    breakers.try_acquire(7).unwrap().release();
    assert_no_allocation(breakers.layer(|request: &u8| *request));
}

#[tokio::test(start_paused = true)]
async fn a_retry_allocates_nothing() {
    assert_no_allocation(RetryLayer::new(3));
    assert_no_allocation(RetryLayer::new(3).budget(RetryBudget::in_flight(0.2, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_allocates_nothing() {
    assert_no_allocation(HedgeLayer::new(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_allocates_nothing() {
    let limit = ConcurrencyLimit::new("orders", Aimd::new(1));
    assert_no_allocation(limit.layer());
    assert_no_allocation(limit.queue(1.0, 1.0, SECOND).layer());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_allocates_nothing() {
    let limiter = RateLimiter::new("orders", Limit::new(1000, SECOND));
    assert_no_allocation(limiter.layer());
    assert_no_allocation(limiter.wait(SECOND).layer());
}

#[tokio::test(start_paused = true)]
async fn a_throttle_allocates_nothing() {
    let throttle = Throttle::new("orders", throttle::Throttle::default());
    // The window is made at the first use.
    let _ = throttle.rejection_rate();
    assert_no_allocation(throttle.layer());
}

#[tokio::test(start_paused = true)]
async fn chaos_allocates_nothing() {
    let chaos = Chaos::new("orders", 1);
    // A thread that reads the faults for the first time makes itself known.
    let _ = chaos.faults();
    assert_no_allocation(chaos.layer());
}

#[tokio::test(start_paused = true)]
async fn a_fallback_allocates_nothing() {
    assert_no_allocation(FallbackLayer::value(0));
    let replica = service_fn(|request: u8| ready(Ok::<_, BoxError>(request)));
    assert_no_allocation(FallbackLayer::service(u8::clone, replica));
    // Room for a key is made when it is first seen.
    let last = LastGood::new(|request: &u8| Some(*request));
    let first = last.layer().layer(Inner { pauses: 0 }).oneshot(7);
    assert_eq!(first.await.unwrap(), 7);
    assert_no_allocation(last.layer());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_be_shared_allocates_nothing() {
    assert_no_allocation(CoalesceLayer::new(|request: &u8| *request));
}

#[tokio::test(start_paused = true)]
async fn callers_that_share_a_call_allocate_nothing_once_as_many_have_shared_one() {
    let layer = CoalesceLayer::new(|request: &u8| *request);
    let service = layer.layer(Inner { pauses: 1 });
    let share = || {
        let mut calls = [(); 20].map(|()| Box::pin(service.clone().call(7)));
        allocation_counter::measure(|| {
            let mut cx = Context::from_waker(Waker::noop());
            for call in &mut calls {
                assert!(call.as_mut().poll(&mut cx).is_pending());
            }
            for call in &mut calls {
                assert!(call.as_mut().poll(&mut cx).is_ready());
            }
        })
    };
    assert_ne!(share().count_total, 0);
    assert_eq!(share().count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_deadline_allocates_nothing_where_one_could_travel() {
    assert_no_allocation(
        ServiceBuilder::new()
            .map_request(Request::<u8>::new)
            .layer(ReceiveDeadlineLayer::new())
            .layer(SendDeadlineLayer::new())
            .map_request(Request::<u8>::into_body),
    );
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_allocates_nothing() {
    let breaker = CircuitBreaker::new("orders", Settings::default());
    assert_no_allocation(PipelineLayer::new(
        FallbackLayer::value(0),
        RetryLayer::new(3),
        breaker.layer(),
        Bulkhead::new("orders", 1).layer(),
        TimeoutLayer::new(SECOND),
    ));
}

#[tokio::test(start_paused = true)]
async fn a_whole_stack_allocates_nothing() {
    assert_no_allocation(
        ServiceBuilder::new()
            .layer(TimeoutLayer::new(SECOND))
            .layer(Bulkhead::new("orders", 1).queue(1, SECOND).layer())
            .layer(RetryLayer::new(3))
            .layer(CircuitBreaker::new("orders", Settings::default()).layer())
            .layer(TimeoutLayer::new(SECOND)),
    );
}

/// Answers with the request, after having been pending so many times.
#[derive(Clone)]
struct Inner {
    pauses: u32,
}

impl Service<u8> for Inner {
    type Response = u8;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u8) -> Answer {
        Answer {
            pauses: self.pauses,
            answer: ready(Ok(request)),
        }
    }
}

struct Answer {
    pauses: u32,
    answer: Ready<Result<u8, BoxError>>,
}

impl Future for Answer {
    type Output = Result<u8, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pauses > 0 {
            self.pauses -= 1;
            return Poll::Pending;
        }
        Pin::new(&mut self.answer).poll(cx)
    }
}
