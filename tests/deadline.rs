//! A deadline that comes with an HTTP request: what it bounds, and how it goes on to the next service.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::future::{Ready, pending};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::backoff::{Backoff, Jitter};
use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Aimd;
use buttress::error::{Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::coalesce::CoalesceLayer;
use buttress::layers::concurrency::ConcurrencyLimit;
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::{Decision, RetryLayer};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::transport::http::deadline::{ReceiveDeadlineLayer, SendDeadlineLayer};
use buttress::{BoxError, Deadline, clock};
use http::header::HeaderName;
use http::{HeaderMap, Request};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const HOUR: Duration = Duration::from_secs(3600);

/// How long the requests of these tests have.
const LEFT: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn with(name: &str, value: &str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
}

fn with_extension(deadline: Deadline) -> Request<()> {
    Request::builder().extension(deadline).body(()).unwrap()
}

/// The same deadline, as each of the ways that it can come brings it.
fn each_way() -> [Request<()>; 3] {
    [
        with("grpc-timeout", "100m"),
        with("x-request-timeout-ms", "100"),
        with_extension(Deadline::within(LEFT)),
    ]
}

fn reason(error: &BoxError) -> Reason {
    Rejected::find(&**error).expect("a refusal").reason()
}

/// What the service inside sees: what is left of the deadline in force, and of the one in the extensions.
async fn sees(request: Request<()>) -> Result<(Option<Duration>, Option<Duration>), BoxError> {
    let left = |it: Deadline| it.remaining(clock::now());
    let known = request.extensions().get().copied();
    Ok((Deadline::current().map(left), known.map(left)))
}

// The server's side.

#[tokio::test(start_paused = true)]
async fn the_earliest_of_headers_extension_and_scope_is_in_force_and_in_the_extensions() {
    let envoy = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
    let service = ReceiveDeadlineLayer::new()
        .header(envoy)
        .layer(service_fn(sees));
    // The headers, the extension, the scope.
    let table = [
        (vec![("grpc-timeout", "100m")], 200, 300),
        (
            vec![("x-request-timeout-ms", "100"), ("grpc-timeout", "2S")],
            200,
            300,
        ),
        (vec![("x-envoy-expected-rq-timeout-ms", "100")], 200, 300),
        (vec![("grpc-timeout", "1H")], 100, 300),
        (vec![("grpc-timeout", "1H")], 300, 100),
        (vec![("grpc-timeout", "soon")], 200, 100),
        (vec![], 100, 200),
    ];
    for (headers, extension, scope) in table {
        let mut request = with_extension(Deadline::within(ms(extension)));
        for (name, value) in &headers {
            let value = value.parse().unwrap();
            request.headers_mut().insert(*name, value);
        }
        let call = service.clone().oneshot(request);
        let seen = Deadline::within(ms(scope)).scope(call).await.unwrap();
        assert_eq!(seen, (Some(LEFT), Some(LEFT)), "{headers:?}");
    }
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_in_force_in_the_call_and_whenever_it_is_polled() {
    let service = ReceiveDeadlineLayer::new().layer(service_fn(|request| {
        let in_call = Deadline::current();
        async move {
            clock::sleep(ms(60)).await;
            assert_eq!(in_call, Deadline::current());
            sees(request).await
        }
    }));
    for request in each_way() {
        let left = Some(ms(40));
        // The third of them counts from before.
        let seen = service.clone().oneshot(request).await.unwrap();
        assert!(seen.0 <= left && seen.0 == seen.1, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_says_nothing_that_can_be_read_has_no_deadline() {
    let service = ReceiveDeadlineLayer::new().layer(service_fn(sees));
    for (name, value) in [
        ("grpc-timeout", "100"),
        ("grpc-timeout", "123456789m"),
        ("grpc-timeout", "-1S"),
        ("x-request-timeout-ms", "99999999999999999999999"),
        ("x-request-timeout-ms", "1e3"),
        ("x-other", "100"),
    ] {
        let request = with(name, value);
        let seen = service.clone().oneshot(request).await.unwrap();
        assert_eq!(seen, (None, None), "{name}: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_has_longer_than_the_most() {
    let layer = ReceiveDeadlineLayer::new().most(LEFT);
    let service = layer.layer(service_fn(sees));
    for request in [
        Request::new(()),
        with("grpc-timeout", "99999999H"),
        with("x-request-timeout-ms", "18446744073709551615"),
        with_extension(Deadline::within(HOUR)),
        with("grpc-timeout", "garbage"),
    ] {
        let seen = service.clone().oneshot(request).await.unwrap();
        assert_eq!(seen, (Some(LEFT), Some(LEFT)));
    }
    let seen = service.oneshot(with("grpc-timeout", "1m")).await.unwrap();
    assert_eq!(seen.0, Some(ms(1)));
}

#[tokio::test(start_paused = true)]
async fn a_time_of_zero_has_passed_and_the_timeout_inside_refuses_the_request_unsent() {
    let service = ServiceBuilder::new()
        .layer(ReceiveDeadlineLayer::new())
        .layer(TimeoutLayer::new(HOUR))
        .service_fn(sees);
    for (name, value) in [("grpc-timeout", "0n"), ("x-request-timeout-ms", "0")] {
        let error = service.clone().oneshot(with(name, value)).await;
        let error = error.unwrap_err();
        assert_eq!(reason(&error), Reason::DeadlineExceeded);
        assert!(Rejected::find(&*error).unwrap().never_sent());
    }
}

#[tokio::test]
async fn a_router_that_never_fails_can_have_the_layer() {
    let app = axum::Router::new()
        .fallback(|deadline: axum::Extension<Deadline>| async move {
            assert_eq!(Deadline::current(), Some(*deadline));
            "in time"
        })
        .layer(ReceiveDeadlineLayer::new().most(HOUR));
    let request = Request::new(axum::body::Body::empty());
    assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
}

// Each layer inside keeps to it, though the request alone brings it.

/// The calls of `service`, which would take an hour, end with `expected` after so long.
async fn ends<S>(service: S, expected: fn(Reason) -> bool, after: Duration)
where
    S: Service<Request<()>, Response = (), Error = BoxError> + Clone,
{
    let service = ReceiveDeadlineLayer::new().layer(service);
    for way in 0..each_way().len() {
        let start = clock::now();
        let [grpc, millis, extension] = each_way();
        let request = match way {
            0 => grpc,
            1 => millis,
            _ => extension,
        };
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!(clock::now() - start, after, "{error}");
        assert!(expected(reason(&error)), "{error}");
    }
}

fn is_deadline(reason: Reason) -> bool {
    reason == Reason::DeadlineExceeded
}

async fn hangs(_: Request<()>) -> Result<(), BoxError> {
    pending().await
}

/// Fails at once, as a peer does that is down.
async fn fails(_: Request<()>) -> Result<(), BoxError> {
    Err(Rejected::new("peer", Reason::NoInstance).into())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_keeps_to_a_deadline_that_the_request_brings() {
    let layer = TimeoutLayer::new(HOUR);
    ends(layer.layer(service_fn(hangs)), is_deadline, LEFT).await;
    let layer = layer.by(|_: &Request<()>| Some(2 * HOUR));
    ends(layer.layer(service_fn(hangs)), is_deadline, LEFT).await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_bulkhead_keeps_to_a_deadline_that_the_request_brings() {
    let bulkhead = Bulkhead::new("orders", 1).queue(9, HOUR);
    let service = bulkhead.layer().layer(service_fn(hangs));
    let _held = bulkhead.acquire().await.unwrap();
    ends(service, is_deadline, LEFT).await;
    assert_eq!(bulkhead.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_concurrency_limit_keeps_to_a_deadline_that_the_request_brings() {
    let limit = ConcurrencyLimit::new("orders", Aimd::new(1).within(1..=1)).queue(9.0, 9.0, HOUR);
    let service = limit.layer().layer(service_fn(hangs));
    let mut held = tokio_test::task::spawn(service.clone().oneshot(Request::new(())));
    assert!(held.poll().is_pending());
    ends(service, is_deadline, LEFT).await;
    assert_eq!(limit.figures().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn no_wait_for_a_rate_limit_begins_that_a_deadline_of_the_request_cannot_bear() {
    let limiter = RateLimiter::new("orders", Limit::new(1, HOUR)).wait(HOUR);
    let service = limiter.layer().layer(service_fn(|_| async { Ok(()) }));
    service.clone().oneshot(Request::new(())).await.unwrap();
    ends(service, |it| it == Reason::RateLimited, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn no_wait_before_a_retry_begins_that_a_deadline_of_the_request_cannot_bear() {
    let retry = RetryLayer::new(3)
        .backoff(Backoff::constant(HOUR).jitter(Jitter::None))
        .rules(|_: &Request<()>, _: Result<&(), &BoxError>| Decision::Retry { after: None });
    let service = retry.layer(service_fn(fails));
    ends(service, |it| it == Reason::NoInstance, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_keep_to_a_deadline_that_the_request_brings() {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(100).backoff(Backoff::constant(Duration::ZERO)))
        .layer(TimeoutLayer::new(ms(40)))
        .service_fn(hangs);
    ends(service, is_deadline, LEFT).await;
}

#[tokio::test(start_paused = true)]
async fn no_hedge_is_sent_after_a_deadline_that_the_request_brings() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let service = ServiceBuilder::new()
        .layer(HedgeLayer::new(ms(60)).attempts(9).budget(None))
        .layer(TimeoutLayer::new(HOUR))
        .service_fn(move |request| {
            seen.fetch_add(1, Relaxed);
            hangs(request)
        });
    ends(service, is_deadline, LEFT).await;
    assert_eq!(
        calls.load(Relaxed),
        2 * 3,
        "the call and one hedge, each time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_breaker_counts_what_a_deadline_of_the_request_ended_and_not_what_it_kept_back() {
    let breaker = CircuitBreaker::new("orders", Settings::default());
    let service = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(TimeoutLayer::new(HOUR))
        .service_fn(hangs);
    ends(service.clone(), is_deadline, LEFT).await;
    assert_eq!(breaker.figures().calls.calls, 3);

    let service = ReceiveDeadlineLayer::new().layer(service);
    let too_late = with("grpc-timeout", "0m");
    service.oneshot(too_late).await.unwrap_err();
    assert_eq!(breaker.figures().calls.calls, 3);
}

#[tokio::test(start_paused = true)]
async fn a_shared_call_is_left_at_a_deadline_that_the_request_brings() {
    let layer = CoalesceLayer::new(|_: &Request<()>| 7);
    ends(layer.layer(service_fn(hangs)), is_deadline, LEFT).await;
}

// The client's side.

async fn headers(request: Request<()>) -> Result<HeaderMap, BoxError> {
    Ok(request.into_parts().0.headers)
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_sent_less_the_margin_and_rounded_down() {
    let service = SendDeadlineLayer::new()
        .margin(ms(10))
        .layer(service_fn(headers));
    let left = ms(500) + Duration::from_nanos(1_999_999);
    for (content_type, name, expected) in [
        ("application/json", "x-request-timeout-ms", "491"),
        ("application/grpc", "grpc-timeout", "491999u"),
    ] {
        let request = with("content-type", content_type);
        let call = Deadline::within(left).scope(service.clone().oneshot(request));
        let sent = call.await.unwrap();
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert_eq!(sent[name], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_extension_and_scope_is_sent_and_is_in_force_inside() {
    let service = SendDeadlineLayer::new().layer(service_fn(|request: Request<()>| async {
        let sent = request.headers()["x-request-timeout-ms"].clone();
        Ok::<_, BoxError>((sent, sees(request).await?.0))
    }));
    for (extension, scope) in [(100, 300), (300, 100), (100, 100)] {
        let request = with_extension(Deadline::within(ms(extension)));
        let call = service.clone().oneshot(request);
        let (sent, seen) = Deadline::within(ms(scope)).scope(call).await.unwrap();
        assert_eq!(sent, "100");
        assert_eq!(seen, Some(LEFT));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_deadline_is_sent_as_it_is() {
    let service = SendDeadlineLayer::new().layer(service_fn(headers));
    let sent = service.clone().oneshot(Request::new(())).await.unwrap();
    assert!(sent.is_empty());
    let sent = service
        .oneshot(with("x-request-timeout-ms", "garbage"))
        .await;
    assert_eq!(sent.unwrap()["x-request-timeout-ms"], "garbage");
}

#[tokio::test(start_paused = true)]
async fn a_header_that_says_less_stays_and_any_other_is_replaced() {
    let service = SendDeadlineLayer::new().layer(service_fn(headers));
    for (said, expected) in [("40", "40"), ("5000", "100"), ("garbage", "100")] {
        let request = with("x-request-timeout-ms", said);
        let call = Deadline::within(LEFT).scope(service.clone().oneshot(request));
        assert_eq!(call.await.unwrap()["x-request-timeout-ms"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_nothing_left_is_refused_before_it_is_sent_and_the_observer_hears_of_it()
{
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Rejected>>>);
    impl Observe for Heard {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                self.0.lock().unwrap().push((*rejected).clone());
            }
        }
    }
    let heard = Heard::default();
    let service = SendDeadlineLayer::new()
        .margin(ms(10))
        .observe(heard.clone())
        .layer(service_fn(|_| -> Ready<Result<(), BoxError>> {
            panic!("sent")
        }));
    // Passed, all of it the margin's, less than the unit of the header.
    for left in [Duration::ZERO, ms(10), ms(10) + Duration::from_micros(999)] {
        let request = with_extension(Deadline::within(left));
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!(reason(&error), Reason::DeadlineExceeded);
        let told = heard.0.lock().unwrap().pop().unwrap();
        assert!(told.never_sent() && told.is_timeout());
        assert!(heard.0.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_says_what_it_has() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(ms(250)))
        .layer(RetryLayer::new(9).backoff(Backoff::constant(Duration::ZERO)))
        .layer(TimeoutLayer::new(ms(100)))
        .layer(SendDeadlineLayer::new())
        .service_fn(|request: Request<()>| {
            let sent = request.headers()["x-request-timeout-ms"].to_str().unwrap();
            seen.lock().unwrap().push(sent.to_owned());
            hangs(request)
        });
    service.oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), ["100", "100", "50"]);
}

#[tokio::test(start_paused = true)]
async fn each_hop_subtracts_what_it_took_and_its_margin() {
    // A service in front of the next: works for 50 ms, then asks that.
    let last = ReceiveDeadlineLayer::new()
        .layer(service_fn(sees))
        .boxed_clone();
    let mut next = last;
    for _ in 0..3 {
        let asks = SendDeadlineLayer::new().margin(ms(5)).layer(next);
        let service = service_fn(move |_: Request<()>| {
            let asks = asks.clone();
            async move {
                clock::sleep(ms(50)).await;
                // A request of its own: nothing of the one that came in is in it.
                asks.oneshot(Request::new(())).await
            }
        });
        next = ReceiveDeadlineLayer::new().layer(service).boxed_clone();
    }
    let request = with("grpc-timeout", "500m");
    let (seen, _) = next.oneshot(request).await.unwrap();
    assert_eq!(seen, Some(ms(500 - 3 * 55)));
    assert_eq!(Deadline::current(), None);
}
