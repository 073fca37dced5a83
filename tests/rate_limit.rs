//! The rate limit through its public face, in paused time.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::algo::gcra::Limit;
use buttress::error::{AsRejected, Reason};
use buttress::layers::rate_limit::{Acquire, RateLimiter};
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Deadline, Error, ErrorLayer, Outcome, Rejected, clock};
use proptest::prelude::*;
use tokio::time::sleep;
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A request that cannot be cloned.
struct Request {
    tenant: &'static str,
    size: u32,
}

fn of(tenant: &'static str) -> Request {
    Request { tenant, size: 1 }
}

fn backend()
-> impl Service<Request, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(|_: Request| async { Ok(()) })
}

fn rejected(error: &BoxError) -> &Rejected {
    Rejected::find(&**error).expect("a refusal")
}

/// One permit each second, one at once.
fn slow() -> Limit {
    Limit::new(1, SECOND).burst(1)
}

#[tokio::test(start_paused = true)]
async fn a_call_too_early_is_refused_at_once_and_told_exactly_when_to_come_back() {
    let limiter = RateLimiter::new("geocoder", Limit::new(1, 60 * SECOND));
    let mut service = limiter.layer().layer(backend());
    service.call(of("a")).await.unwrap();
    sleep(ms(1)).await;

    let error = assert_ready_err!(spawn(service.call(of("a"))).poll());
    let refusal = rejected(&error);
    assert_eq!(refusal.reason(), Reason::RateLimited);
    assert!(refusal.is_rate_limited());
    assert_eq!(
        (refusal.layer(), refusal.name()),
        ("rate limit", Some("geocoder"))
    );
    let wait = refusal.wait_hint().expect("a time");
    assert_eq!(wait, 60 * SECOND - ms(1));
    assert_eq!(
        error.to_string(),
        "rate limit `geocoder` is reached; retry after 60s"
    );

    sleep(wait - ms(1)).await;
    assert!(service.call(of("a")).await.is_err());
    sleep(ms(1)).await;
    service.call(of("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_could_not_make_it_in_time_is_not_parked_first() {
    let limiter = RateLimiter::new("api", Limit::new(1, 60 * SECOND)).wait(10 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let error = limiter.acquire(1).await.unwrap_err();
    assert_eq!(clock::now(), began);
    assert_eq!(error.wait_hint(), Some(60 * SECOND));
    assert_eq!(limiter.waiting(), 0);

    sleep(50 * SECOND).await;
    limiter.acquire(1).await.unwrap();
    assert_eq!(clock::now() - began, 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn all_services_and_clones_of_one_handle_share_its_permits() {
    let limiter = RateLimiter::new("api", Limit::new(3, SECOND));
    let layer = limiter.layer();
    let services = [
        layer.layer(backend()),
        layer.clone().layer(backend()),
        limiter.clone().layer().layer(backend()),
    ];
    // As axum does, which clones a service for each connection.
    for service in &services {
        service.clone().oneshot(of("a")).await.unwrap();
    }
    for service in services {
        assert!(service.oneshot(of("a")).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn under_axum_all_connections_share_one_limit_and_are_told_when_to_come_back() {
    use axum::error_handling::HandleErrorLayer;
    use axum::http::{Request, StatusCode, header::RETRY_AFTER};
    use axum::{Router, body::Body, response::IntoResponse, routing::get};

    let refused = |error: Error<Infallible>| async move {
        let rejected = error.as_rejected().expect("the handler cannot fail");
        let wait = rejected
            .wait_hint()
            .unwrap_or_default()
            .as_secs_f64()
            .ceil();
        let header = [(RETRY_AFTER, wait.to_string())];
        (StatusCode::TOO_MANY_REQUESTS, header).into_response()
    };
    let limiter = RateLimiter::per_key("users", Limit::new(2, 60 * SECOND), 1_000);
    let user = |request: &Request<Body>| request.uri().query().map(str::to_owned);
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refused))
        .layer(limiter.layer_by(user))
        .layer(ErrorLayer);
    let app = Router::new()
        .route("/", get(|| async { "here" }))
        .layer(layers);
    // A connection has a clone of the application.
    let call = async |query: &str| {
        let request = Request::get(format!("/?{query}"))
            .body(Body::empty())
            .unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(call("a").await.status(), StatusCode::OK);
    }
    let response = call("a").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[RETRY_AFTER], "30");
    assert_eq!(call("b").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_turn_and_a_newcomer_does_not_overtake() {
    let limiter = RateLimiter::new("api", slow()).wait(3 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let waits = [limiter.acquire(1), limiter.acquire(1)];
    assert_eq!((limiter.waiting(), limiter.available()), (2, -2));
    sleep(ms(500)).await;
    let newcomer = limiter.acquire(1);
    let refused = limiter.acquire(1).await.unwrap_err();
    assert_eq!(refused.wait_hint(), Some(ms(3500)));

    for (acquire, second) in waits.into_iter().chain([newcomer]).zip(1..) {
        acquire.await.unwrap();
        assert_eq!(clock::now() - began, second * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_polled_late_loses_no_permits() {
    let limiter = RateLimiter::new("api", slow()).wait(9 * SECOND);
    limiter.acquire(1).await.unwrap();
    let waits: Vec<_> = (0..4).map(|_| limiter.acquire(1)).collect();
    sleep(Duration::from_millis(4500)).await;
    for acquire in waits {
        assert_ready_ok!(spawn(acquire).poll());
    }
    assert_eq!(limiter.available(), 0, "the next is due at five seconds");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_gives_its_permits_back_and_the_others_move_up() {
    let limiter = RateLimiter::new("api", slow()).wait(10 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let mut first = spawn(limiter.acquire(1));
    let mut second = spawn(limiter.acquire(1));
    let mut third = spawn(limiter.acquire(1));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    assert_eq!(limiter.available(), -3);

    sleep(ms(500)).await;
    drop(second);
    assert_eq!(limiter.available(), -2);
    drop(first);
    assert!(third.is_woken(), "its time is another now");
    assert_eq!((limiter.available(), limiter.waiting()), (-1, 1));
    third.await.unwrap();
    assert_eq!(clock::now() - began, SECOND);
    // No more permits than if they had never been there.
    let error = limiter.acquire(11).await.unwrap_err();
    assert_eq!(error.wait_hint(), Some(11 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn permits_that_were_granted_and_not_used_are_given_back() {
    let limiter = RateLimiter::new("api", Limit::new(2, SECOND));
    drop(limiter.acquire(2));
    assert_eq!(limiter.available(), 2);
    // A call that was let in has reached the service inside, whether or not somebody waits for the answer.
    let mut service = limiter.layer().layer(backend());
    drop(service.call(of("a")));
    assert_eq!(limiter.available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_the_wait_is_a_cancellation() {
    let limiter = RateLimiter::new("api", slow()).wait(10 * SECOND);
    limiter.acquire(1).await.unwrap();
    for _ in 0..100 {
        let wait = tokio::time::timeout(ms(5), limiter.acquire(1));
        assert!(wait.await.is_err());
    }
    let began = clock::now();
    limiter.acquire(1).await.unwrap();
    assert_eq!(
        clock::now() - began,
        ms(500),
        "a hundred waits cost nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_the_deadline_cannot_bear() {
    let limiter = RateLimiter::new("api", slow()).wait(60 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    // Around the call and its future, and around the future alone.
    let around_both = async { limiter.acquire(1).await };
    let around_the_future = limiter.acquire(1);
    for result in [
        Deadline::within(ms(999)).scope(around_both).await,
        Deadline::within(ms(999)).scope(around_the_future).await,
    ] {
        assert_eq!(result.unwrap_err().reason(), Reason::RateLimited);
    }
    assert_eq!(clock::now(), began);
    let enough = Deadline::within(SECOND).scope(async { limiter.acquire(1).await });
    enough.await.unwrap();
    assert_eq!(limiter.available(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_as_many_permits_as_it_costs() {
    let limiter = RateLimiter::new("bytes", Limit::new(100, SECOND));
    let layer = limiter.layer().cost(|request: &Request| request.size);
    let mut service = layer.layer(backend());
    let sized = |size| Request { tenant: "a", size };
    service.call(sized(60)).await.unwrap();
    let error = service.call(sized(60)).await.unwrap_err();
    assert_eq!(rejected(&error).wait_hint(), Some(ms(200)));
    service.call(sized(40)).await.unwrap();
    // Nothing is left, and nothing is what this one takes.
    service.call(sized(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_the_burst_is_refused_for_good() {
    let limiter = RateLimiter::new("bytes", Limit::new(100, SECOND).burst(10));
    let error = limiter.acquire(11).await.unwrap_err();
    let reason = Reason::CostAboveBurst {
        cost: 11,
        burst: 10,
    };
    assert_eq!(error.reason(), reason);
    assert!(error.is_rate_limited());
    assert_eq!(error.wait_hint(), None, "there is no use in coming back");
    assert_eq!(
        error.to_string(),
        "rate limit `bytes` gives 10 permits at most, and the call takes 11"
    );
    assert_eq!(limiter.available(), 10);

    // Who may wait for what is above a burst can have it, as far as the wait goes.
    let patient = limiter.wait(ms(100));
    let began = clock::now();
    patient.acquire(20).await.unwrap();
    assert_eq!(clock::now() - began, ms(100));
    let error = patient.acquire(21).await.unwrap_err();
    assert_eq!(
        error.reason(),
        Reason::CostAboveBurst {
            cost: 21,
            burst: 10
        }
    );
    let error = patient.acquire(20).await.unwrap_err();
    assert_eq!(error.wait_hint(), Some(ms(200)));
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_permits() {
    let limiter = RateLimiter::per_key("tenants", slow(), 100);
    let mut service = limiter
        .layer_by(|request: &Request| request.tenant)
        .cost(|request: &Request| request.size)
        .layer(backend());
    service.call(of("a")).await.unwrap();
    service.call(of("b")).await.unwrap();
    let error = service.call(of("a")).await.unwrap_err();
    assert_eq!(rejected(&error).wait_hint(), Some(SECOND));
    assert_eq!(limiter.keys(), 2);

    limiter.reconfigure(Limit::new(2, SECOND));
    for key in ["a", "b", "c"] {
        limiter.acquire_for(key, 1).await.unwrap();
    }
    assert!(limiter.acquire_for("a", 1).await.is_err());
    limiter.acquire_for("c", 1).await.unwrap();
}

/// The plans of a model: the first tenants pay.
fn plan(tenant: &u32) -> Limit {
    match tenant {
        ..10 => Limit::new(3, SECOND),
        _ => Limit::new(1, SECOND),
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_key_is_asked_once_when_it_is_first_seen_and_again_when_it_comes_back() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let limits = move |tenant: &u32| {
        log.lock().unwrap().push(*tenant);
        plan(tenant)
    };
    let limiter = RateLimiter::per_key("tenants", limits, 100);
    for (tenant, permits) in [(1, 3), (10, 1)] {
        for _ in 0..permits {
            limiter.acquire_for(tenant, 1).await.unwrap();
        }
        assert!(limiter.acquire_for(tenant, 1).await.is_err());
    }
    assert_eq!(*asked.lock().unwrap(), [1, 10]);

    // Many that are idle make room for others.
    sleep(10 * SECOND).await;
    for other in 100..200 {
        limiter.acquire_for(other, 1).await.unwrap();
    }
    limiter.acquire_for(1, 3).await.unwrap();
    assert_eq!(*asked.lock().unwrap().last().unwrap(), 1);
    assert_eq!(asked.lock().unwrap().len(), 103);
}

#[tokio::test(start_paused = true)]
async fn another_plan_reaches_the_keys_that_are_known_and_those_that_come() {
    let limiter = RateLimiter::per_key("tenants", plan, 100).wait(2 * SECOND);
    limiter.acquire_for(1, 3).await.unwrap();
    limiter.acquire_for(10, 1).await.unwrap();
    let waits = limiter.acquire_for(10, 1);
    let began = clock::now();

    limiter.reconfigure(|tenant: &u32| Limit::new(10 * (tenant + 1), SECOND));
    assert_eq!(limiter.of(1).available(), 17, "three are taken");
    waits.await.unwrap();
    assert_eq!(clock::now(), began, "the new plan has room for it");
    assert_eq!(limiter.of(5).available(), 60);

    limiter.reconfigure(Limit::new(7, SECOND));
    assert_eq!(limiter.of(6).available(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_and_steered_as_a_limiter_of_its_own() {
    let limiter = RateLimiter::per_key("tenants", plan, 100).wait(9 * SECOND);
    assert!(limiter.find(&1).is_none(), "to look makes none");
    limiter.acquire_for(1, 2).await.unwrap();
    let tenant = limiter.find(&1).expect("seen");
    assert_eq!((tenant.available(), tenant.name()), (1, "tenants"));

    tenant.drain();
    let waits = limiter.acquire_for(1, 1);
    assert_eq!((tenant.available(), tenant.waiting()), (-1, 1));
    drop(waits);
    tenant.reconfigure(Limit::new(20, SECOND));
    assert_eq!(tenant.available(), 17);
    assert_eq!(limiter.of(2).available(), 3, "no other key hears of it");

    let mut service = tenant.layer().layer(backend());
    service.call(of("a")).await.unwrap();
    assert_eq!(limiter.of(1).available(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_limit_given_to_one_key_is_kept_until_all_are_reconfigured() {
    let limiter = RateLimiter::per_key("tenants", plan, 10);
    limiter.of(10).reconfigure(Limit::new(5, SECOND));
    for other in 100..1000 {
        limiter.acquire_for(other, 1).await.unwrap();
        sleep(ms(100)).await;
    }
    assert_eq!(limiter.of(10).available(), 5);
    assert!(limiter.keys() <= 10);

    limiter.reconfigure(plan);
    assert_eq!(limiter.of(10).available(), 1);
}

#[test]
fn a_key_that_comes_while_the_limit_changes_has_the_new_one() {
    for _ in 0..200 {
        let limiter = RateLimiter::per_key("tenants", Limit::new(1, SECOND), 1000);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let limiter = &limiter;
                scope.spawn(move || (0..20).for_each(|key| drop(limiter.of(20 * thread + key))));
                scope.spawn(move || limiter.reconfigure(Limit::new(7, SECOND)));
            }
        });
        for key in 0..40 {
            assert_eq!(limiter.of(key).available(), 7);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_and_busy_ones_are_not() {
    let limiter = RateLimiter::per_key("users", slow(), 1000);
    for key in 0..10_000 {
        limiter.acquire_for(key, 1).await.unwrap();
        sleep(ms(100)).await;
        assert!(limiter.keys() < 200, "{} after {key}", limiter.keys());
        assert!(limiter.acquire_for(key, 1).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_is_bounded_and_does_not_wash_away_a_debt() {
    for most in [1, 7, 1000, 10_000] {
        let limiter = RateLimiter::per_key("users", Limit::new(10, SECOND), most);
        if most > 1 {
            limiter.acquire_for(u32::MAX, 10).await.unwrap();
        }
        for key in 0..30_000 {
            limiter.acquire_for(key, 1).await.unwrap();
            assert!(limiter.keys() <= most);
        }
        if most > 1 {
            assert!(limiter.acquire_for(u32::MAX, 1).await.is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_waits_for_is_kept() {
    let limiter = RateLimiter::per_key("users", slow(), 2).wait(SECOND);
    limiter.acquire_for(0, 1).await.unwrap();
    let mut waits = spawn(limiter.acquire_for(0, 1));
    assert_pending!(waits.poll());
    for key in 1..100 {
        limiter.acquire_for(key, 1).await.unwrap();
    }
    assert!(limiter.acquire_for(0, 1).await.is_err());
    assert_eq!((limiter.keys(), limiter.waiting()), (2, 1));
    waits.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_limit_keeps_the_debt_and_serves_who_waits_at_its_rate() {
    let limiter = RateLimiter::new("api", Limit::new(1, 10 * SECOND)).wait(60 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let mut first = spawn(limiter.acquire(1));
    let mut second = spawn(limiter.acquire(1));
    assert_pending!(first.poll());
    assert_pending!(second.poll());

    limiter.reconfigure(slow());
    assert_eq!(limiter.available(), -2);
    assert!(first.is_woken() && second.is_woken());
    first.await.unwrap();
    assert_eq!(clock::now() - began, SECOND);

    // And a slower one: what cannot make it any more is told so now, not when its time is up.
    let began = clock::now();
    limiter.reconfigure(Limit::new(1, 120 * SECOND));
    let error = assert_ready_err!(second.poll());
    assert_eq!(error.wait_hint(), Some(120 * SECOND));
    assert_eq!(clock::now(), began);
    assert_eq!(limiter.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn how_long_callers_may_wait_changes_while_calls_flow() {
    let limiter = RateLimiter::new("api", slow());
    let mut service = limiter.layer().layer(backend());
    let impatient = limiter.clone().wait(ms(1));
    service.call(of("a")).await.unwrap();
    assert!(service.call(of("a")).await.is_err(), "nobody waits");

    limiter.set_wait(SECOND);
    assert_eq!(limiter.clone().longest_wait(), SECOND);
    let began = clock::now();
    let waits = service.call(of("a"));
    assert!(service.call(of("a")).await.is_err(), "two seconds");
    limiter.set_wait(Duration::ZERO);
    assert!(service.call(of("a")).await.is_err());
    waits.await.expect("it was told that it may wait");
    assert_eq!(clock::now() - began, SECOND);

    // A clone that has a setting of its own keeps it.
    assert_eq!(impatient.longest_wait(), ms(1));
    limiter.set_wait(Duration::MAX);
    service.call(of("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_keys_how_long_callers_may_wait_is_the_same_for_all() {
    let limiter = RateLimiter::per_key("tenants", plan, 100);
    limiter.acquire_for(10, 1).await.unwrap();
    assert!(limiter.acquire_for(10, 1).await.is_err());
    limiter.set_wait(SECOND);
    limiter.acquire_for(10, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_a_pause_nobody_is_let_in_and_all_are_told_when_it_ends() {
    let limiter = RateLimiter::new("api", Limit::new(100, SECOND));
    limiter.acquire(1).await.unwrap();
    limiter.pause(3 * SECOND);
    sleep(ms(1)).await;
    for permits in [1, 100] {
        let error = limiter.acquire(permits).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RateLimited);
        assert_eq!(error.wait_hint(), Some(ms(2999)));
    }
    assert_eq!((limiter.available(), limiter.paused_for()), (0, ms(2999)));
    // A shorter one does not end it, nor does another limit.
    limiter.pause(ms(1));
    limiter.reconfigure(Limit::new(200, SECOND));
    assert_eq!(limiter.paused_for(), ms(2999));

    sleep(ms(2998)).await;
    assert!(limiter.acquire(1).await.is_err());
    sleep(ms(1)).await;
    limiter.acquire(200).await.unwrap();
    assert_eq!(limiter.paused_for(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_up_who_waits_and_refuses_who_cannot_wait_so_long() {
    let limiter = RateLimiter::new("api", slow()).wait(3 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let mut first = spawn(limiter.acquire(1));
    let mut second = spawn(limiter.acquire(1));
    assert_pending!(first.poll());
    assert_pending!(second.poll());

    limiter.pause(3 * SECOND);
    assert!(first.is_woken() && second.is_woken());
    assert_eq!(limiter.available(), -2);
    let error = assert_ready_err!(second.poll());
    assert_eq!(error.wait_hint(), Some(4 * SECOND));
    assert_pending!(first.poll());
    assert_eq!((limiter.available(), limiter.waiting()), (-1, 1));
    first.await.unwrap();
    assert_eq!(clock::now() - began, 3 * SECOND);
    assert_eq!(limiter.available(), 0, "what it took comes after it went");
}

#[tokio::test(start_paused = true)]
async fn who_resumes_lets_calls_in_at_the_rate_and_not_at_once() {
    let limiter = RateLimiter::new("api", Limit::new(10, SECOND)).wait(60 * SECOND);
    limiter.pause(60 * SECOND);
    let waits = limiter.acquire(1);
    sleep(SECOND).await;
    limiter.resume();
    let began = clock::now();
    waits.await.unwrap();
    assert_eq!(clock::now() - began, ms(100));
    sleep(SECOND).await;
    assert_eq!(limiter.available(), 10);
    limiter.resume();
    assert_eq!(limiter.available(), 10, "there was no pause");
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_one_key_is_none_of_another_and_outlives_a_flood_of_them() {
    let limiter = RateLimiter::per_key("hosts", Limit::new(10, SECOND), 10);
    limiter.of(1).pause(60 * SECOND);
    for other in 100..1000 {
        limiter.acquire_for(other, 1).await.unwrap();
    }
    let error = limiter.acquire_for(1, 1).await.unwrap_err();
    assert_eq!(error.wait_hint(), Some(60 * SECOND));
}

/// What a peer answers with from now on, and how many calls it saw.
#[derive(Clone)]
struct Peer(Arc<Mutex<(Outcome, usize)>>);

impl Peer {
    fn new(says: Outcome) -> Self {
        Self(Arc::new(Mutex::new((says, 0))))
    }

    fn says(&self, says: Outcome) {
        self.0.lock().unwrap().0 = says;
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().1
    }

    /// A service that answers so after `latency`, behind a layer.
    fn behind<L>(&self, layer: &L, latency: Duration) -> L::Service
    where
        L: Layer<BoxCloneService<Request, Outcome, BoxError>>,
    {
        let peer = self.clone();
        layer.layer(BoxCloneService::new(service_fn(move |_: Request| {
            let peer = peer.clone();
            async move {
                peer.0.lock().unwrap().1 += 1;
                sleep(latency).await;
                Ok(peer.0.lock().unwrap().0)
            }
        })))
    }
}

fn outcome(result: Result<&Outcome, &BoxError>) -> Outcome {
    result.copied().unwrap_or(Outcome::Failure)
}

#[tokio::test(start_paused = true)]
async fn who_is_told_to_come_back_in_three_seconds_sends_nothing_for_three_seconds() {
    let limiter = RateLimiter::new("api", Limit::new(100, SECOND));
    let peer = Peer::new(Outcome::Overload(Some(3 * SECOND)));
    let mut service = peer.behind(&limiter.layer().classify(outcome), ms(10));
    service.call(of("a")).await.unwrap();
    peer.says(Outcome::Success);

    let began = clock::now();
    while clock::now() < began + 3 * SECOND {
        let error = service.call(of("a")).await.unwrap_err();
        let left = began + 3 * SECOND - clock::now();
        assert_eq!(rejected(&error).reason(), Reason::RateLimited);
        assert_eq!(rejected(&error).wait_hint(), Some(left));
        sleep(ms(250)).await;
    }
    assert_eq!(peer.calls(), 1);
    service.call(of("a")).await.unwrap();
    assert_eq!(peer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_keys_the_one_is_held_back_that_the_answer_was_for() {
    let limiter = RateLimiter::per_key("tenants", Limit::new(100, SECOND), 100);
    let peer = Peer::new(Outcome::Overload(Some(3 * SECOND)));
    let layer = limiter
        .layer_by(|request: &Request| request.tenant)
        .classify(outcome)
        .cost(|request: &Request| request.size);
    let mut service = peer.behind(&layer, ms(10));
    service.call(of("a")).await.unwrap();
    peer.says(Outcome::Success);
    let error = service.call(of("a")).await.unwrap_err();
    assert_eq!(rejected(&error).wait_hint(), Some(3 * SECOND));
    service.call(of("b")).await.unwrap();
    assert_eq!(limiter.of("b").paused_for(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_overload_without_a_time_takes_what_permits_there_are() {
    let limiter = RateLimiter::new("api", Limit::new(10, SECOND));
    let peer = Peer::new(Outcome::Overload(None));
    let mut service = peer.behind(&limiter.layer().classify(outcome), Duration::ZERO);
    service.call(of("a")).await.unwrap();
    assert_eq!(limiter.available(), 0);
    let error = service.call(of("a")).await.unwrap_err();
    assert_eq!(rejected(&error).wait_hint(), Some(ms(100)));
}

#[tokio::test(start_paused = true)]
async fn only_overloads_are_heeded_and_none_where_nobody_asked() {
    let limiter = RateLimiter::new("api", Limit::new(100, SECOND));
    let peer = Peer::new(Outcome::Success);
    let mut service = peer.behind(&limiter.layer().classify(outcome), Duration::ZERO);
    let at_once = Outcome::Overload(Some(Duration::ZERO));
    let ignored = [
        Outcome::Success,
        Outcome::Failure,
        Outcome::Ignored,
        at_once,
    ];
    for (says, calls) in ignored.into_iter().zip(1..) {
        peer.says(says);
        service.call(of("a")).await.unwrap();
        assert_eq!(limiter.available(), 100 - calls, "{says:?}");
    }
    peer.says(Outcome::Overload(None));
    let mut deaf = peer.behind(&limiter.layer(), Duration::ZERO);
    deaf.call(of("a")).await.unwrap();
    assert_eq!(limiter.available(), 95);
}

#[tokio::test(start_paused = true)]
async fn no_slip_of_a_peer_shuts_it_off_for_more_than_an_hour() {
    let limiter = RateLimiter::new("api", Limit::new(100, SECOND));
    let peer = Peer::new(Outcome::Overload(Some(Duration::MAX)));
    let mut service = peer.behind(&limiter.layer().classify(outcome), Duration::ZERO);
    service.call(of("a")).await.unwrap();
    assert_eq!(limiter.paused_for(), 3600 * SECOND);
    limiter.resume();
    sleep(ms(10)).await;
    service.call(of("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_the_peer_asks_for_a_pause_waits_that_out() {
    let limiter = RateLimiter::new("api", Limit::new(2, SECOND).burst(1)).wait(5 * SECOND);
    let peer = Peer::new(Outcome::Overload(Some(3 * SECOND)));
    let service = peer.behind(&limiter.layer().classify(outcome), ms(10));
    let began = clock::now();
    let call = |n: u32| {
        let (service, peer) = (service.clone(), peer.clone());
        async move {
            service.oneshot(of("a")).await.unwrap();
            peer.says(Outcome::Success);
            (n, clock::now() - began)
        }
    };
    let (first, second, third) = tokio::join!(call(0), call(1), call(2));
    let after = |millis: u64| ms(3010 + millis) + ms(10);
    assert_eq!(first, (0, ms(10)));
    assert_eq!((second, third), ((1, after(0)), (2, after(500))));
}

#[tokio::test(start_paused = true)]
async fn a_429_with_retry_after_is_heeded_by_the_rules_of_http() {
    use axum::http::{Response, StatusCode, header::RETRY_AFTER};
    use buttress::transport::http::HttpRules;

    for (status, wait) in [
        (429, Some(SECOND * 7)),
        (503, Some(SECOND * 7)),
        (500, None),
    ] {
        let limiter = RateLimiter::new("api", Limit::new(100, SECOND));
        let server = service_fn(move |()| async move {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, "7".parse().unwrap());
            Ok::<_, BoxError>(response)
        });
        let layer = limiter.layer().classify(HttpRules::new());
        let response = layer.layer(server).oneshot(()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(limiter.paused_for(), wait.unwrap_or_default(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_limiter_warms_up() {
    let limit = Limit::new(100, SECOND).warm_up(10 * SECOND);
    let limiter = RateLimiter::new("cache", limit).wait(SECOND);
    let mut calls = Vec::new();
    let began = clock::now();
    for second in 1..=12 {
        let mut count = 0;
        while clock::now() < began + second * SECOND {
            limiter.acquire(1).await.unwrap();
            count += 1;
        }
        calls.push(count);
    }
    assert!((30..=40).contains(&calls[0]), "{calls:?}");
    assert!(calls.is_sorted_by(|a, b| *a <= b + 1), "{calls:?}");
    assert!((98..=101).contains(&calls[11]), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sliding_limit_is_kept_through_waits_and_changes() {
    let limiter = RateLimiter::new("api", Limit::new(3, SECOND).sliding()).wait(9 * SECOND);
    let began = clock::now();
    limiter.acquire(2).await.unwrap();
    sleep(ms(600)).await;
    limiter.acquire(1).await.unwrap();
    let gives_up = limiter.acquire(1);
    let mut first = spawn(limiter.acquire(1));
    let second = limiter.acquire(2);
    assert_pending!(first.poll());
    drop(gives_up);
    assert!(first.is_woken());
    first.await.unwrap();
    assert_eq!(clock::now() - began, SECOND);
    second.await.unwrap();
    assert_eq!(clock::now() - began, ms(1600));

    let next = limiter.acquire(2);
    limiter.reconfigure(Limit::new(5, SECOND).sliding());
    next.await.unwrap();
    assert_eq!(clock::now() - began, ms(1600));
    assert_eq!(limiter.available(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_its_permits_allocates_nothing() {
    let inner = service_fn(|()| std::future::ready(Ok::<_, BoxError>(())));
    let one = RateLimiter::new("api", slow()).wait(SECOND);
    let keyed = RateLimiter::per_key("api", Limit::new(3, SECOND), 10).wait(SECOND);
    keyed.acquire_for(7, 1).await.unwrap();
    let mut one = one.layer().layer(inner);
    let success = |_: Result<&(), &BoxError>| Outcome::Success;
    let heeds = keyed.layer_by(|(): &()| 7).classify(success);
    let (mut keyed, mut heeds) = (keyed.layer_by(|(): &()| 7).layer(inner), heeds.layer(inner));
    let mut cx = Context::from_waker(Waker::noop());
    let allocated = allocation_counter::measure(|| {
        assert!(pin!(one.call(())).poll(&mut cx).is_ready());
        assert!(pin!(keyed.call(())).poll(&mut cx).is_ready());
        assert!(pin!(heeds.call(())).poll(&mut cx).is_ready());
    });
    assert_eq!(allocated.count_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_forgotten_and_no_permit_is_lost_under_contention() {
    let limiter = RateLimiter::new("api", Limit::new(100_000, SECOND).burst(1)).wait(SECOND);
    let calls: Vec<_> = (0..1000)
        .map(|i| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let acquire = limiter.acquire(1);
                match i % 3 {
                    0 => drop(acquire),
                    _ => acquire.await.unwrap(),
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(limiter.waiting(), 0);
}

#[test]
fn a_call_that_another_overtakes_to_the_lock_is_not_refused_for_it() {
    let limiter = RateLimiter::new("api", Limit::new(u32::MAX, SECOND));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    assert_ready_ok!(spawn(limiter.acquire(1)).poll());
                }
            });
        }
    });
}

#[tokio::test(start_paused = true)]
async fn who_was_let_into_the_queue_is_not_refused_for_a_fraction_of_a_nanosecond() {
    let limiter = RateLimiter::new("api", Limit::new(7, SECOND).burst(1)).wait(2 * SECOND);
    limiter.acquire(1).await.unwrap();
    let began = clock::now();
    let waits: Vec<_> = (0..14).map(|_| limiter.acquire(1)).collect();
    assert!(limiter.acquire(1).await.is_err());
    for acquire in waits {
        acquire.await.unwrap();
    }
    assert_eq!(clock::now() - began, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_counts_by_the_minute_is_matched() {
    let limit = Limit::new(2, 60 * SECOND).in_steps();
    let limiter = RateLimiter::new("api", limit);
    sleep(59 * SECOND).await;
    limiter.acquire(2).await.unwrap();
    let error = limiter.acquire(1).await.unwrap_err();
    assert_eq!(error.wait_hint(), Some(SECOND));
    sleep(SECOND).await;
    limiter.acquire(2).await.unwrap();
    sleep(60 * SECOND).await;
    limiter.drain();
    assert!(limiter.acquire(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_holds_none_of_the_inner_services_readiness() {
    let shared = tower::limit::ConcurrencyLimitLayer::new(1).layer(backend());
    let limiter = RateLimiter::new("tenant", slow()).wait(60 * SECOND);
    let mut greedy = limiter.layer().layer(shared.clone());
    greedy.call(of("a")).await.unwrap();
    let mut waits = spawn(greedy.call(of("a")));
    assert_pending!(waits.poll());
    let began = clock::now();
    shared.oneshot(of("b")).await.unwrap();
    assert_eq!(clock::now(), began);
}

#[tokio::test(start_paused = true)]
async fn the_observer_hears_of_each_refusal_and_may_use_the_limiter() {
    #[derive(Default)]
    struct Refusals(Mutex<Vec<Reason>>, Mutex<Option<RateLimiter>>);
    impl Observe for Refusals {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                self.0.lock().unwrap().push(rejected.reason());
                let limiter = self.1.lock().unwrap();
                assert!(limiter.as_ref().expect("set").available() <= 1);
            }
        }
    }
    let refusals = Arc::new(Refusals::default());
    let limiter = RateLimiter::new("api", slow()).observe(Arc::clone(&refusals));
    *refusals.1.lock().unwrap() = Some(limiter.clone());
    limiter.acquire(1).await.unwrap();
    assert!(limiter.acquire(1).await.is_err());
    assert!(limiter.acquire(2).await.is_err());
    assert_eq!(
        *refusals.0.lock().unwrap(),
        [
            Reason::RateLimited,
            Reason::CostAboveBurst { cost: 2, burst: 1 }
        ]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u32),
    GiveUp(usize),
    Pass(u64),
    Change(u32),
    Pause(u64),
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_u32..5).prop_map(Step::Ask),
        2 => any::<usize>().prop_map(Step::GiveUp),
        4 => (1_u64..80).prop_map(Step::Pass),
        1 => (1_u32..30).prop_map(Step::Change),
        1 => (0_u64..1500).prop_map(Step::Pause),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever comes, gives up, changes the limit or pauses it: no call goes before the plain rule lets it, and all go in turn.
    #[test]
    fn no_span_of_time_holds_too_many_calls_and_all_go_in_turn(steps in steps(), change: bool, sliding: bool) {
        const LOOK: Duration = Duration::from_millis(5);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut fastest = 10;
            let limit = |permits| match sliding {
                true => Limit::new(permits, SECOND).sliding(),
                false => Limit::new(permits, SECOND).burst(4),
            };
            let burst = if sliding { 30 } else { 4 };
            let limiter = RateLimiter::new("model", limit(fastest)).wait(2 * SECOND);
            let mut waiting: Vec<(u32, Spawn<Acquire>)> = Vec::new();
            let mut gone: Vec<(Duration, u32)> = Vec::new();
            let began = clock::now();
            let mut opens = began;
            let mut look = |waiting: &mut Vec<(u32, Spawn<Acquire>)>, opens| {
                let mut blocked = false;
                waiting.retain_mut(|(cost, acquire)| match acquire.poll() {
                    Poll::Ready(Ok::<(), Rejected>(())) => {
                        assert!(!blocked, "one behind another that waits");
                        assert!(clock::now() >= opens, "in a pause");
                        gone.push((clock::now() - began, *cost));
                        false
                    }
                    Poll::Ready(Err(_)) => false,
                    Poll::Pending => {
                        blocked = true;
                        true
                    }
                });
            };
            for step in steps {
                match step {
                    Step::Ask(cost) => waiting.push((cost, spawn(limiter.acquire(cost)))),
                    Step::GiveUp(n) if !waiting.is_empty() => {
                        drop(waiting.remove(n % waiting.len()));
                    }
                    Step::GiveUp(_) => {}
                    Step::Change(permits) if change => {
                        fastest = fastest.max(permits);
                        limiter.reconfigure(limit(permits));
                    }
                    Step::Change(_) => {}
                    Step::Pause(millis) => {
                        limiter.pause(ms(millis));
                        opens = opens.max(clock::now() + ms(millis));
                    }
                    Step::Resume => {
                        limiter.resume();
                        opens = clock::now();
                    }
                    Step::Pass(looks) => {
                        for _ in 0..looks {
                            sleep(LOOK).await;
                            look(&mut waiting, opens);
                        }
                    }
                }
                look(&mut waiting, opens);
            }
            assert_eq!(limiter.waiting(), waiting.len());
            for (i, &(from, _)) in gone.iter().enumerate() {
                let mut sum = 0;
                for &(to, cost) in &gone[i..] {
                    sum += cost;
                    // One can be seen late by a look.
                    let span = (to - from + LOOK).as_secs_f64();
                    let allowed = f64::from(burst) + span * f64::from(fastest);
                    assert!(f64::from(sum) <= allowed + 1e-6, "{sum} in {span} s: {gone:?}");
                    if sliding && !change && span < 1.0 {
                        assert!(sum <= fastest, "{sum} within a period: {gone:?}");
                    }
                }
            }
        });
    }
}
