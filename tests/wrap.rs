//! The layers around the clients and servers that people use: `reqwest`, `hyper-util`, `tonic` and `axum`, over real
//! connections on the loopback interface.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::error_handling::HandleErrorLayer;
use axum::{Router, extract, routing::get, routing::post};
use buttress::algo::backoff::Backoff;
use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::clock;
use buttress::error::{AsRejected, ErrorLayer};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::coalesce::CoalesceLayer;
use buttress::layers::hedge::CopyRequest;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::{RetryLayer, Rules};
use buttress::layers::timeout::TimeoutLayer;
use buttress::transport::axum::respond;
use buttress::transport::http::{Attempt, Attempts, HttpRules, ReplayBody};
use buttress::transport::tonic::{GrpcRules, status};
use buttress::{BoxError, Rejected};
use http::StatusCode;
use http_body_util::Full;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const MINUTE: Duration = Duration::from_secs(60);
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
const PUSHBACK: &str = "grpc-retry-pushback-ms";

// axum

#[tokio::test]
async fn a_refusal_at_a_router_answers_with_the_status_and_when_to_come_back() {
    let open = CircuitBreaker::new("database", opens_at_once());
    let limiter = RateLimiter::new("web", Limit::new(1, MINUTE));
    let full = Bulkhead::new("reports", 1);
    let _slot = full.acquire().await.unwrap();
    macro_rules! behind {
        ($layer:expr) => {
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(respond))
                .layer($layer)
                .layer(ErrorLayer)
        };
    }
    let failing = behind!(open.layer().classify(HttpRules::new()));
    let app = Router::new()
        .route(
            "/open",
            get(StatusCode::INTERNAL_SERVER_ERROR).layer(failing),
        )
        .route("/limited", get("hello").layer(behind!(limiter.layer())))
        .route("/full", get("hello").layer(behind!(full.layer())))
        .route(
            "/slow",
            get(async || std::future::pending::<()>().await)
                .layer(behind!(TimeoutLayer::new(Duration::ZERO))),
        );
    let server = serve(app).await;

    let mut answers = Vec::new();
    for path in ["open", "open", "limited", "limited", "full", "slow"] {
        let response = reqwest::get(format!("{server}/{path}")).await.unwrap();
        let after = response.headers().get("retry-after").cloned();
        let after = after.map(|it| it.to_str().unwrap().parse::<u64>().unwrap());
        answers.push((
            response.status().as_u16(),
            after,
            response.text().await.unwrap(),
        ));
    }
    let [fails, open, _, limited, full, slow] = &*answers else {
        panic!("{answers:?}")
    };
    assert_eq!(fails.0, 500);
    assert_eq!((open.0, open.1), (503, Some(60)));
    assert!(
        open.2
            .starts_with("circuit breaker `database` is open; retry after"),
        "{}",
        open.2
    );
    assert_eq!((limited.0, limited.1), (429, Some(60)));
    let text = "bulkhead `reports` is full: its limit is 1 outstanding";
    assert_eq!(full, &(503, None, text.to_owned()));
    assert_eq!((slow.0, slow.1), (504, None));
}

#[tokio::test]
async fn a_layer_of_a_router_has_one_state_for_all_connections() {
    let bulkhead = Bulkhead::new("web", 1);
    let app = Router::new()
        .route("/", get(async || std::future::pending::<()>().await))
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(respond))
                .layer(bulkhead.layer())
                .layer(ErrorLayer),
        );
    let server = serve(app).await;
    let first = tokio::spawn(reqwest::get(server.clone()));
    while bulkhead.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(reqwest::get(server).await.unwrap().status(), 503);
    first.abort();
}

// any service

#[tokio::test]
async fn a_spawned_block_owns_a_stack_over_a_bare_function_and_an_error_layer() {
    let spawned = tokio::spawn(async move {
        let stack = ServiceBuilder::new()
            .layer(RetryLayer::new(2))
            .layer(CircuitBreaker::new("hello", Settings::default()).layer())
            .layer(ErrorLayer)
            .service_fn(|name: String| async move {
                match name.is_empty() {
                    true => Err(BoxError::from("nobody")),
                    false => Ok(name),
                }
            });
        stack.oneshot("world".to_owned()).await
    });
    assert_eq!(spawned.await.unwrap().unwrap(), "world");
}

// reqwest and hyper

#[tokio::test]
async fn walks_of_a_reqwest_error_find_the_refusal_the_time_out_and_the_failed_connection() {
    let breaker = CircuitBreaker::new("hello", Settings::default());
    let stack = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(TimeoutLayer::new(MINUTE))
        .layer(Bulkhead::new("hello", 10).layer())
        .layer(RetryLayer::new(2).rules(HttpRules::new()).budget(None))
        .layer(breaker.layer().classify(HttpRules::new()))
        .layer(ErrorLayer);
    let get = |url: &str| {
        let request = reqwest::Client::new()
            .get(url)
            .timeout(Duration::from_millis(50));
        stack
            .clone()
            .service(reqwest::Client::new())
            .oneshot(request.build().unwrap())
    };

    let refused = get(&nobody_listens().await).await.unwrap_err();
    assert!(find::<reqwest::Error>(&*refused).unwrap().is_connect());
    assert!(Rejected::find(&*refused).is_none());

    let hangs = serve(Router::new().route(
        "/",
        axum::routing::get(async || std::future::pending::<()>().await),
    ))
    .await;
    let timed_out = get(&hangs).await.unwrap_err();
    assert!(find::<reqwest::Error>(&*timed_out).unwrap().is_timeout());

    breaker.force_open();
    let rejected = get(&hangs).await.unwrap_err();
    assert!(Rejected::find(&*rejected).unwrap().is_open());
}

#[tokio::test]
async fn walks_of_a_hyper_error_find_the_refusal_and_the_failed_connection() {
    let breaker = CircuitBreaker::new("hello", Settings::default());
    let client = ServiceBuilder::new()
        .layer(CoalesceLayer::new(
            |request: &http::Request<Full<Bytes>>| request.uri().clone(),
        ))
        .layer(TimeoutLayer::new(MINUTE))
        .layer(breaker.layer())
        .map_err(BoxError::from)
        .map_response(|response: http::Response<_>| response.status())
        .service(legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let url = nobody_listens().await;
    let request = || http::Request::get(&url).body(Full::default()).unwrap();

    let refused = client.clone().oneshot(request()).await.unwrap_err();
    assert!(find::<legacy::Error>(&*refused).unwrap().is_connect());

    breaker.force_open();
    let (one, other) = tokio::join!(
        client.clone().oneshot(request()),
        client.clone().oneshot(request())
    );
    for rejected in [one.unwrap_err(), other.unwrap_err()] {
        assert!(Rejected::find(&*rejected).unwrap().is_open());
    }
}

#[tokio::test]
async fn a_reqwest_request_is_tried_again_by_the_rules_of_http() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let fails_first = async move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]),
        _ => (StatusCode::OK, [("retry-after", "0")]),
    };
    let server = serve(Router::new().route("/", get(fails_first.clone()).post(fails_first))).await;
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(2).rules(HttpRules::new()))
        .layer(ErrorLayer)
        .service(reqwest::Client::new());
    let reqwest = reqwest::Client::new();

    let answer = client
        .clone()
        .oneshot(reqwest.get(&server).build().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), calls.load(Ordering::SeqCst)),
        (200, 2)
    );
    assert_eq!(answer.extensions().get(), Some(&Attempts(2)));

    calls.store(0, Ordering::SeqCst);
    let answer = client
        .oneshot(reqwest.post(&server).build().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), calls.load(Ordering::SeqCst)),
        (503, 1)
    );
}

#[tokio::test]
async fn a_post_that_hyper_found_no_connection_for_is_tried_again() {
    let url = nobody_listens().await;
    for method in [http::Method::POST, http::Method::GET] {
        let (attempts, error) = attempts_of_hyper(method, &url).await;
        assert!(find::<legacy::Error>(&*error).unwrap().is_connect());
        assert_eq!(attempts, 3);
    }
}

#[tokio::test]
async fn a_post_whose_connection_broke_after_it_was_sent_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let posts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&posts);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"an order") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            seen.fetch_add(u32::from(request.starts_with(b"POST")), Ordering::SeqCst);
        }
    });
    let (attempts, error) = attempts_of_hyper(http::Method::POST, &url).await;
    assert!(!find::<legacy::Error>(&*error).unwrap().is_connect());
    assert_eq!(attempts, 1);
    assert_eq!(posts.load(Ordering::SeqCst), 2, "once by each client");
    let (attempts, _) = attempts_of_hyper(http::Method::PUT, &url).await;
    assert_eq!(attempts, 3, "what is idempotent may be sent again");
}

// tonic

#[tokio::test]
async fn a_call_through_an_open_breaker_is_unavailable_with_pushback() {
    let greeter = Greeter::start([unavailable(None)]).await;
    let breaker = CircuitBreaker::new("greeter", opens_at_once());
    let channel = ServiceBuilder::new()
        .layer(breaker.layer().classify(GrpcRules::new()))
        .map_err(status)
        .service(greeter.channel.clone());
    let client = client(channel);

    // The failure stands in the head of the response.
    let failed = client.clone().oneshot(hello()).await.unwrap_err();
    assert_eq!(failed.message(), "scripted");
    let refused = client.oneshot(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let pushback = refused.metadata().get(PUSHBACK).unwrap().to_str().unwrap();
    assert!(
        (50_000..=60_000).contains(&pushback.parse().unwrap()),
        "{pushback}"
    );
    assert_eq!(Rejected::find(&refused).unwrap().name(), Some("greeter"));
    assert_eq!(greeter.calls(), 1);
}

#[tokio::test]
async fn a_retried_call_comes_back_when_the_server_said() {
    let greeter = Greeter::start([unavailable(Some("200"))]).await;
    let began = clock::now();
    let reply = retried(client(channel(&greeter)))
        .oneshot(hello())
        .await
        .unwrap();
    assert_eq!(reply.get_ref().text, "1 again");
    assert_eq!(reply.extensions().get(), Some(&Attempts(2)));
    assert!(clock::now() - began >= Duration::from_millis(200));
    assert_eq!(greeter.calls(), 2);
}

#[tokio::test]
async fn a_call_is_not_retried_against_the_server_nor_for_another_code() {
    for (failure, code) in [
        (unavailable(Some("-1")), Code::Unavailable),
        (unavailable(Some("soon")), Code::Unavailable),
        (Status::internal("scripted"), Code::Internal),
    ] {
        let greeter = Greeter::start([failure]).await;
        let failed = retried(client(channel(&greeter)))
            .oneshot(hello())
            .await
            .unwrap_err();
        assert_eq!((failed.code(), greeter.calls()), (code, 1));
    }
}

#[tokio::test]
async fn a_retry_around_the_channel_sees_a_failure_that_stands_in_the_head() {
    let greeter = Greeter::start([unavailable(Some("0"))]).await;
    let channel = ServiceBuilder::new()
        .map_request(|request: http::Request<Body>| request.map(|body| ReplayBody::new(body, 1024)))
        .layer(RetryLayer::new(2).rules(GrpcRules::new()))
        .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        .map_err(status)
        .service(greeter.channel.clone());
    let reply = client(channel).oneshot(hello()).await.unwrap();
    assert_eq!(reply.get_ref().text, "1 again");
    assert_eq!(greeter.calls(), 2);
}

#[test]
fn a_request_of_grpc_says_which_attempt_it_is_and_its_hedges_count_on() {
    let rules = GrpcRules::new();
    let mut request = hello();
    let before = |request: &Request<Hello>| {
        let told = request.metadata().get(PREVIOUS_ATTEMPTS);
        let attempt = request.extensions().get::<Attempt>().copied();
        (told.map(|it| it.to_str().unwrap().to_owned()), attempt)
    };
    let attempt = |number, hedge| Some(Attempt { number, hedge });
    let said = |before: &str| Some(before.to_owned());
    let mark = |request: &mut Request<Hello>, number| {
        Rules::<_, Response<Reply>, Status>::mark(&rules, request, number);
    };
    mark(&mut request, 1);
    assert_eq!(before(&request), (None, attempt(1, false)));
    mark(&mut request, 2);
    assert_eq!(before(&request), (said("1"), attempt(2, false)));
    let hedge = rules.copy(&request, 2).unwrap();
    assert_eq!(before(&hedge), (said("2"), attempt(3, true)));
}

#[tokio::test]
async fn a_server_that_refuses_says_so_to_clients_of_any_kind() {
    let limiter = RateLimiter::new("server", Limit::new(1, MINUTE));
    let limits = ServiceBuilder::new().layer(limiter.layer()).map_err(status);
    let greeter = Greeter::behind(Server::builder().layer(limits), []).await;
    let client = client(channel(&greeter));
    client.clone().oneshot(hello()).await.unwrap();
    let refused = client.oneshot(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .message()
            .starts_with("rate limit `server` is reached"),
        "{refused}"
    );
    assert!(refused.metadata().contains_key(PUSHBACK));
    // It was another's, which says nothing about what is inside here.
    assert!(refused.as_rejected().is_none());
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_unavailable_and_its_error_is_kept() {
    let channel = Endpoint::from_shared(nobody_listens().await)
        .unwrap()
        .connect_lazy();
    let channel = ServiceBuilder::new()
        .layer(TimeoutLayer::new(MINUTE))
        .map_err(status)
        .service(channel);
    let refused = client(channel).oneshot(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(find::<tonic::transport::Error>(&refused).is_some());
    assert!(find::<std::io::Error>(&refused).is_some());
}

/// A server whose first calls fail as it was told.
struct Greeter {
    channel: Channel,
    calls: Arc<AtomicU32>,
}

impl Greeter {
    async fn start<const N: usize>(failures: [Status; N]) -> Self {
        Self::behind(Server::builder(), failures).await
    }

    async fn behind<L, const N: usize>(mut server: Server<L>, failures: [Status; N]) -> Self
    where
        L: tower::Layer<Routes> + Clone + Send + 'static,
        L::Service: Service<
                http::Request<Body>,
                Response = http::Response<Body>,
                Error: Into<BoxError> + Send,
            >,
        L::Service: Service<http::Request<Body>, Future: Send> + Clone + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let say_hello = async move |request: extract::Request| {
            let call = counted.fetch_add(1, Ordering::SeqCst) as usize;
            let failure = failures.get(call).cloned();
            let reply = service_fn(move |request: Request<Hello>| {
                let text = match request.metadata().get(PREVIOUS_ATTEMPTS) {
                    Some(before) => format!("{} again", before.to_str().unwrap()),
                    None => format!("hello {}", request.get_ref().name),
                };
                let result = match failure.clone() {
                    Some(failure) => Err(failure),
                    None => Ok(Response::new(Reply { text })),
                };
                async { result }
            });
            tonic::server::Grpc::new(ProstCodec::default())
                .unary(reply, request)
                .await
        };
        let router = Router::new().route(SAY_HELLO, post(say_hello));
        let server = server.add_routes(Routes::from(router));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        Self { channel, calls }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(string, tag = "1")]
    text: String,
}

/// The calls of a generated client.
fn client<C>(
    channel: C,
) -> impl Service<Request<Hello>, Response = Response<Reply>, Error = Status, Future: Send> + Clone
where
    C: Service<http::Request<Body>, Response = http::Response<Body>, Error: Into<BoxError>>,
    C: Service<http::Request<Body>, Future: Send> + Clone + Send + 'static,
{
    service_fn(move |request| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        async move {
            grpc.ready().await.map_err(status)?;
            let path = http::uri::PathAndQuery::from_static(SAY_HELLO);
            grpc.unary(request, path, ProstCodec::default()).await
        }
    })
}

fn retried<S>(client: S) -> impl Service<Request<Hello>, Response = Response<Reply>, Error = Status>
where
    S: Service<Request<Hello>, Response = Response<Reply>, Error = Status> + Clone,
{
    ServiceBuilder::new()
        .layer(RetryLayer::new(2).rules(GrpcRules::new()))
        .service(client)
}

fn channel(greeter: &Greeter) -> Channel {
    greeter.channel.clone()
}

fn hello() -> Request<Hello> {
    let name = "world".to_owned();
    Request::new(Hello { name })
}

fn unavailable(pushback: Option<&'static str>) -> Status {
    let mut status = Status::unavailable("scripted");
    if let Some(millis) = pushback {
        status
            .metadata_mut()
            .insert(PUSHBACK, millis.parse().unwrap());
    }
    status
}

fn opens_at_once() -> Settings {
    Settings::default()
        .minimum_calls(1)
        .open_wait(MINUTE)
        .open_jitter(0.0)
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// How often a request is sent to `url` through `hyper-util`'s client, of three times at most, and how that ends.
async fn attempts_of_hyper(method: http::Method, url: &str) -> (u32, BoxError) {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let retry = || {
        let retry = RetryLayer::new(3).rules(HttpRules::new()).budget(None);
        retry.backoff(Backoff::constant(Duration::ZERO))
    };
    let count = move |request: http::Request<ReplayBody<Full<Bytes>>>| {
        counted.fetch_add(1, Ordering::SeqCst);
        request
    };
    let client = || legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = || {
        let body = ReplayBody::new(Full::new(Bytes::from_static(b"an order")), 1024);
        let request = http::Request::builder().method(&method).uri(url);
        request.body(body).unwrap()
    };
    // With either kind of error.
    let boxed = ServiceBuilder::new()
        .layer(retry())
        .map_request(count.clone())
        .map_err(BoxError::from)
        .service(client());
    let error = boxed.oneshot(request()).await.unwrap_err();
    let typed = ServiceBuilder::new()
        .layer(retry())
        .map_request(count)
        .layer(ErrorLayer)
        .service(client());
    let by_box = attempts.swap(0, Ordering::SeqCst);
    typed.oneshot(request()).await.unwrap_err();
    assert_eq!(attempts.load(Ordering::SeqCst), by_box);
    (by_box, error)
}

/// The URL of a port that was free a moment ago.
async fn nobody_listens() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The first `E` among an error and its causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

const SAY_HELLO: &str = "/hello.Greeter/SayHello";
