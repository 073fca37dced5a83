//! What is compared: each layer alone and whole stacks, around a service that answers at once or is pending once.

use std::fmt::Debug;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::BoxError;
use buttress::algo::breaker::Settings;
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::fallback::FallbackLayer;
use buttress::layers::retry::RetryLayer;
use buttress::layers::timeout::TimeoutLayer;
use buttress::pipeline::PipelineLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Layer, Service, ServiceBuilder};
use tower_resilience::bulkhead::BulkheadLayer as TrBulkhead;
use tower_resilience::circuitbreaker::CircuitBreakerLayer as TrBreaker;
use tower_resilience::fallback::FallbackLayer as TrFallback;
use tower_resilience::retry::RetryLayer as TrRetry;
use tower_resilience::timelimiter::TimeLimiterLayer as TrTimeLimiter;

/// Makes so many calls, one after the other, each polled by hand until it is over.
pub type Calls = Box<dyn FnMut(&mut Context<'_>, u64) + Send>;

/// A service under its name; each of its clones makes calls of its own.
pub struct Contender {
    pub name: &'static str,
    pub clone: Box<dyn Fn() -> Calls>,
}

pub fn contenders(pends: bool) -> Vec<Contender> {
    let inner = Inner { pends };
    let breaker = || CircuitBreaker::new("bench", Settings::default());
    let bulkhead = || Bulkhead::new("bench", LIMIT);
    vec![
        contender("bare", inner),
        contender("timeout", TimeoutLayer::new(LONG).layer(inner)),
        contender("bulkhead", bulkhead().layer().layer(inner)),
        contender("breaker", breaker().layer().layer(inner)),
        contender("retry", RetryLayer::new(3).layer(inner)),
        contender("fallback", FallbackLayer::value(0).layer(inner)),
        contender(
            OURS,
            ServiceBuilder::new()
                .layer(FallbackLayer::value(0))
                .layer(RetryLayer::new(3))
                .layer(breaker().layer())
                .layer(bulkhead().layer())
                .layer(TimeoutLayer::new(LONG))
                .service(inner),
        ),
        contender(
            ONE,
            PipelineLayer::new(
                FallbackLayer::value(0),
                RetryLayer::new(3),
                breaker().layer(),
                bulkhead().layer(),
                TimeoutLayer::new(LONG),
            )
            .layer(inner),
        ),
        contender(
            TOWER,
            ServiceBuilder::new()
                .load_shed()
                .concurrency_limit(LIMIT)
                .retry(Attempts {
                    left: 2,
                    budget: Arc::new(TpsBudget::default()),
                })
                .timeout(LONG)
                .service(inner),
        ),
        contender(
            RIVAL,
            ServiceBuilder::new()
                .layer(TrFallback::value(0))
                .layer(TrRetry::builder().max_attempts(3).build())
                .layer(TrBreaker::builder().build().expect("valid"))
                .layer(
                    TrBulkhead::builder()
                        .max_concurrent_calls(LIMIT)
                        .build()
                        .expect("valid"),
                )
                .layer(TrTimeLimiter::builder().timeout_duration(LONG).build())
                .service(inner),
        ),
    ]
}

fn contender<S>(name: &'static str, service: S) -> Contender
where
    S: Service<u64, Response = u64, Error: Debug> + Clone + Send + 'static,
{
    Contender {
        name,
        clone: Box::new(move || {
            let mut service = service.clone();
            Box::new(move |cx, calls| {
                for call in 0..calls {
                    let ready = service.poll_ready(cx);
                    assert!(matches!(ready, Poll::Ready(Ok(()))));
                    let mut answer = pin!(service.call(black_box(call)));
                    let answer = loop {
                        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                            break answer;
                        }
                    };
                    black_box(answer.expect("an answer"));
                }
            })
        }),
    }
}

/// The service under test.
#[derive(Clone, Copy)]
struct Inner {
    pends: bool,
}

struct Answer {
    pends: bool,
    answer: u64,
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, answer: u64) -> Answer {
        let pends = self.pends;
        Answer { pends, answer }
    }
}

impl Future for Answer {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pends) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.answer))
    }
}

/// tower's retry with tower's budget.
#[derive(Clone)]
struct Attempts {
    left: u32,
    budget: Arc<TpsBudget>,
}

impl<E> tower::retry::Policy<u64, u64, E> for Attempts {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Self::Future> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.budget.withdraw().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

pub const OURS: &str = "stack";
pub const ONE: &str = "pipeline";
pub const TOWER: &str = "tower's stack";
pub const RIVAL: &str = "tower-resilience's stack";

const LIMIT: usize = 100;
const LONG: Duration = Duration::from_secs(30);
