//! Retries and hedges of `http` requests with bodies, through [`HttpRules`].

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::backoff::Backoff;
use buttress::error::Reason;
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::retry::RetryLayer;
use buttress::observe::{Event, Observe};
use buttress::transport::http::{Attempt, Attempts, HttpRules, ReplayBody};
use buttress::{BoxError, Rejected, clock};
use http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};

type Frame = Result<http_body::Frame<bytes::Bytes>, std::io::Error>;
type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Frame>>>;

/// A streamed request.
fn request(method: Method, parts: &[&'static str]) -> Request<ReplayBody<Body>> {
    let frames: Vec<Frame> = parts
        .iter()
        .map(|part| Ok(http_body::Frame::data((*part).into())))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let body = ReplayBody::new(body, 10);
    let request = Request::builder().method(method).uri("/orders");
    request.header("x-tenant", "a").body(body).unwrap()
}

/// What the peer got of each attempt: the body, the number, what `header` said.
type Seen = Arc<Mutex<Vec<(String, Attempt, Option<String>)>>>;

/// Answers the attempts with these statuses, and `retry-after` if it is said.
fn peer(
    statuses: &'static [u16],
    retry_after: Option<&'static str>,
    header: &'static str,
) -> (
    Seen,
    impl Service<Request<ReplayBody<Body>>, Response = Response<()>, Error = BoxError, Future: Send>
    + Clone,
) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let service = service_fn(move |request: Request<ReplayBody<Body>>| {
        let log = Arc::clone(&log);
        async move {
            assert_eq!(request.headers()["x-tenant"], "a");
            let attempt = request.extensions().get().copied().unwrap_or_default();
            let said = request.headers().get(header);
            let said = said.map(|said| said.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await?.to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let status = {
                let mut log = log.lock().unwrap();
                log.push((body, attempt, said));
                statuses[log.len() - 1]
            };
            let mut answer = Response::builder().status(status);
            if let Some(after) = retry_after {
                answer = answer.header("retry-after", after);
            }
            Ok(answer.body(()).unwrap())
        }
    });
    (seen, service)
}

fn three_attempts() -> RetryLayer<HttpRules> {
    let layer = RetryLayer::new(3).budget(None).rules(HttpRules::new());
    layer.backoff(Backoff::constant(Duration::ZERO))
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_sent_again_up_to_its_limit_and_never_after() {
    let table: [(&[&str], &[&str]); 4] = [
        (&[], &["", "", ""]),
        (&["short"], &["short", "short", "short"]),
        (&["in ", "two"], &["in two", "in two", "in two"]),
        (&["longer ", "than ten"], &["longer than ten"]),
    ];
    for (parts, expected) in table {
        let (seen, peer) = peer(&[503, 502, 200], None, "none");
        let service = three_attempts().layer(peer);
        service.oneshot(request(Method::PUT, parts)).await.unwrap();
        let bodies: Vec<_> = seen.lock().unwrap().iter().map(|it| it.0.clone()).collect();
        assert_eq!(bodies, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_and_what_is_not_worth_it_is_sent_once() {
    for (method, status, expected) in [
        (Method::GET, 503, 2),
        (Method::POST, 503, 1),
        (Method::GET, 500, 1),
        (Method::GET, 404, 1),
        (Method::DELETE, 429, 2),
    ] {
        let statuses: &'static [u16] = Vec::leak(vec![status, 200]);
        let (seen, peer) = peer(statuses, None, "none");
        let service = three_attempts().layer(peer);
        service.oneshot(request(method, &[])).await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_before_a_retry_is_what_retry_after_asks_for_or_a_little_more() {
    let (_, peer) = peer(&[503, 200], Some("3"), "none");
    let start = clock::now();
    let service = three_attempts().layer(peer);
    service.oneshot(request(Method::GET, &[])).await.unwrap();
    let waited = (clock::now() - start).as_secs_f64();
    assert!((3.0..=3.61).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_says_which_it_is_as_envoy_and_grpc_do() {
    let table = [
        ("x-envoy-attempt-count", [Some("1"), Some("2"), Some("3")]),
        ("grpc-previous-rpc-attempts", [None, Some("1"), Some("2")]),
    ];
    for (name, expected) in table {
        let (seen, peer) = peer(&[503, 503, 503], None, name);
        let rules = HttpRules::new().attempt_header(HeaderName::from_static(name));
        let service = three_attempts().rules(rules).layer(peer);
        service.oneshot(request(Method::GET, &[])).await.unwrap();
        for (i, (_, attempt, said)) in seen.lock().unwrap().iter().enumerate() {
            let number = i as u32 + 1;
            let hedge = false;
            assert_eq!(*attempt, Attempt { number, hedge });
            assert_eq!(said.as_deref(), expected[i]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_says_that_it_is_one_sends_the_body_too_and_bad_answers_do_not_win() {
    let (seen, peer) = peer(&[503, 200], None, "x-attempt");
    let rules = HttpRules::new().attempt_header(HeaderName::from_static("x-attempt"));
    let layer = HedgeLayer::new(Duration::MAX).copy(rules.clone());
    let service = layer.classify(rules).layer(peer);
    let answer = service.clone().oneshot(request(Method::GET, &["a", "b"]));
    assert_eq!(answer.await.unwrap().status(), 200);
    {
        let seen = seen.lock().unwrap();
        let (number, hedge) = (2, true);
        let expected = ("ab".to_owned(), Attempt { number, hedge }, Some("2".into()));
        assert_eq!(seen[1], expected);
        assert_eq!(seen[0], ("ab".to_owned(), Attempt::default(), None));
    }
    seen.lock().unwrap().clear();
    let answer = service.oneshot(request(Method::POST, &[])).await;
    assert_eq!(answer.unwrap().status(), 503, "not idempotent");
}

fn hedge(delay: Duration) -> HedgeLayer<HttpRules, HttpRules> {
    let layer = HedgeLayer::new(delay).budget(None).copy(HttpRules::new());
    layer.classify(HttpRules::new())
}

fn attempts(answer: &Response<()>) -> Option<u32> {
    answer
        .extensions()
        .get()
        .map(|&Attempts(attempts)| attempts)
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_how_many_attempts_it_took_if_they_were_more_than_one() {
    for (statuses, expected) in [
        (&[200][..], None),
        (&[404], None),
        (&[503, 200], Some(2)),
        (&[503, 429, 404], Some(3)),
        (&[503, 503, 503], Some(3)),
    ] {
        let (_, peer) = peer(statuses, None, "none");
        let service = three_attempts().layer(peer);
        let answer = service.oneshot(request(Method::GET, &["a"])).await.unwrap();
        assert_eq!(attempts(&answer), expected, "{statuses:?}");
        assert_eq!(answer.extensions().is_empty(), expected.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_layer_inside_refused_is_not_one_of_those_it_took() {
    for (sent, expected) in [(1, None), (2, Some(2))] {
        let calls = Arc::new(Mutex::new(0));
        let service = three_attempts().layer(service_fn(move |_: Request<ReplayBody<Body>>| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            std::future::ready(match *calls > sent {
                true => Err(BoxError::from(Rejected::new("breaker", Reason::Open))),
                false => Ok(Response::builder().status(503).body(()).unwrap()),
            })
        }));
        let answer = service.oneshot(request(Method::GET, &[])).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), attempts(&answer)),
            (503, expected)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_so_too_if_its_request_was_hedged_and_whoever_won() {
    // How long each attempt takes, and how many there are.
    for (millis, expected) in [
        (&[50, 50][..], None),
        (&[900, 50], Some(2)),
        (&[140, 900], Some(2)),
        (&[900, 900, 50], Some(3)),
    ] {
        let calls = Arc::new(Mutex::new(0));
        let service = hedge(Duration::from_millis(100)).attempts(3);
        let service = service.layer(service_fn(move |_: Request<ReplayBody<Body>>| {
            let mut calls = calls.lock().unwrap();
            let millis = millis[*calls];
            *calls += 1;
            async move {
                clock::sleep(Duration::from_millis(millis)).await;
                Ok::<_, BoxError>(Response::new(()))
            }
        }));
        let answer = service.oneshot(request(Method::GET, &[])).await.unwrap();
        assert_eq!(attempts(&answer), expected, "{millis:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_a_layer_inside_refused_is_not_one_of_them_either() {
    let calls = Arc::new(Mutex::new(0));
    let service = hedge(Duration::from_millis(100)).attempts(3);
    let service = service.layer(service_fn(move |_: Request<ReplayBody<Body>>| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let first = *calls == 1;
        async move {
            if !first {
                return Err(BoxError::from(Rejected::new("breaker", Reason::Open)));
            }
            clock::sleep(Duration::from_millis(500)).await;
            Ok(Response::new(()))
        }
    }));
    let answer = service.oneshot(request(Method::GET, &[])).await.unwrap();
    assert_eq!(attempts(&answer), None);
}

#[tokio::test(start_paused = true)]
async fn hedges_inside_of_a_retry_count_on_from_its_attempts() {
    // Each attempt of the retry is hedged as soon as it fails.
    for (statuses, expected) in [
        (&[200][..], None),
        (&[503, 200], Some(2)),
        (&[503, 503, 200], Some(2)),
        (&[503, 503, 503, 200], Some(3)),
    ] {
        let (_, peer) = peer(statuses, None, "none");
        let service = three_attempts().layer(hedge(Duration::MAX).layer(peer));
        let answer = service.oneshot(request(Method::GET, &[])).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(attempts(&answer), expected, "{statuses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_cloned_get_the_same_answers() {
    let calls = Arc::new(Mutex::new(0));
    let service = three_attempts().layer(service_fn(move |_: Request<()>| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let status = if *calls < 3 { 503 } else { 200 };
        let answer = Response::builder().status(status).body(()).unwrap();
        std::future::ready(Ok::<_, BoxError>(answer))
    }));
    let answer = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(attempts(&answer), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_sent_to_the_last_attempt_is_whole_though_somebody_listens() {
    struct Nobody;
    impl Observe for Nobody {
        fn on_event(&self, _: &Event<'_>) {}
    }
    for parts in [&["short"][..], &["in ", "two"]] {
        let (seen, peer) = peer(&[503, 503, 503], None, "none");
        let service = three_attempts().observe(Nobody).layer(peer);
        service.oneshot(request(Method::PUT, parts)).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|(body, ..)| *body == parts.concat()));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_of_any_kind_will_do() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let service = three_attempts().layer(service_fn(move |_: Request<ReplayBody<Full<_>>>| {
        *counted.lock().unwrap() += 1;
        std::future::ready(Err::<Response<()>, BoxError>("reset".into()))
    }));
    let body = ReplayBody::new(Full::new(bytes::Bytes::from("a")), 1);
    service.oneshot(Request::new(body)).await.unwrap_err();
    assert_eq!(*calls.lock().unwrap(), 3);
}
