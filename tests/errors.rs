//! What a caller finds in an error after it went through all layers.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::error::Error as StdError;
use std::time::Duration;

use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::error::{Error, ErrorLayer, Reason};
use buttress::layers::bulkhead::{self, Bulkhead, Bulkheads};
use buttress::layers::chaos::Chaos;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::coalesce::CoalesceLayer;
use buttress::layers::fallback::LastGood;
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::RetryLayer;
use buttress::layers::timeout::TimeoutLayer;
use buttress::{BoxError, Rejected};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Every layer around `service`.
fn stack<S>(service: S) -> impl Service<u64, Response = (), Error = BoxError>
where
    S: Service<u64, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    ServiceBuilder::new()
        .layer(LastGood::new(|key: &u64| Some(*key)).layer())
        .layer(CoalesceLayer::new(|key: &u64| *key))
        .layer(TimeoutLayer::new(60 * SECOND))
        .layer(RateLimiter::new("peer", Limit::new(100, SECOND)).layer())
        .layer(Bulkhead::new("peer", 9).layer())
        .layer(Bulkheads::new("peer", bulkhead::Settings::new(9), 9).layer(|key: &u64| *key))
        .layer(RetryLayer::new(2))
        .layer(HedgeLayer::new(SECOND))
        .layer(CircuitBreaker::new("peer", Settings::default()).layer())
        .layer(TimeoutLayer::new(30 * SECOND))
        .layer(Chaos::new("peer", 1).layer())
        .service(service)
}

#[tokio::test]
async fn a_walk_for_is_connect_and_is_timeout_is_cut_by_no_layer() {
    // Nobody listens on the first port.
    let refused = service_fn(|_: u64| async {
        let sent = reqwest::get("http://127.0.0.1:1").await;
        sent.map(drop).map_err(BoxError::from)
    });
    let error = stack(refused).oneshot(7).await.unwrap_err();
    let is = |what: fn(&reqwest::Error) -> bool| {
        causes(&*error).any(|cause| cause.downcast_ref().is_some_and(what))
    };
    assert!(is(reqwest::Error::is_connect));
    assert!(!is(reqwest::Error::is_timeout));
    let kind = |cause: &(dyn StdError + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(causes(&*error).any(kind));
}

#[tokio::test]
async fn a_walk_for_is_timeout_finds_the_one_of_the_client_inside() {
    // A server that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let late = service_fn(move |_: u64| {
        let client = reqwest::Client::builder().timeout(Duration::from_millis(50));
        let asked = client.build().unwrap().get(&url).send();
        async { asked.await.map(drop).map_err(BoxError::from) }
    });
    let error = stack(late).oneshot(7).await.unwrap_err();
    let timed_out = |error: &reqwest::Error| error.is_timeout();
    assert!(causes(&*error).any(|cause| cause.downcast_ref().is_some_and(timed_out)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_deep_inside_is_found_and_says_who_and_why() {
    let refuses = service_fn(|_: u64| async {
        let refusal = Rejected::new("bulkhead", Reason::Full { limit: 3 }).named("connections");
        Err::<(), BoxError>(refusal.into())
    });
    let error = stack(refuses).oneshot(7).await.unwrap_err();
    let found = Rejected::find(&*error).unwrap();
    assert_eq!(found.reason(), Reason::Full { limit: 3 });
    assert_eq!(found.name(), Some("connections"));
}

#[tokio::test(start_paused = true)]
async fn errors_do_not_nest_by_layer() {
    let fails = service_fn(|_: u64| async {
        Err::<(), BoxError>(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
    });
    let error = stack(fails).oneshot(7).await.unwrap_err();
    assert!(error.is::<std::io::Error>(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_typed_stack_hands_its_own_error_through_every_layer() {
    #[derive(Clone, Debug, PartialEq)]
    struct NoSuchOrder(u64);

    let service = ServiceBuilder::new()
        .layer(CoalesceLayer::new(|id: &u64| *id))
        .layer(TimeoutLayer::new(SECOND))
        .layer(Bulkhead::new("orders", 9).layer())
        .layer(RetryLayer::new(1))
        .layer(CircuitBreaker::new("orders", Settings::default()).layer())
        .layer(ErrorLayer)
        .service_fn(|id: u64| async move { Err::<(), _>(NoSuchOrder(id)) });
    let error: Error<NoSuchOrder> = service.oneshot(7).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(NoSuchOrder(7)));
}
