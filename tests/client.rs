//! The client around `reqwest`, against servers on loopback.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use buttress::algo::backoff::Backoff;
use buttress::client::Policy;
use buttress::discovery::{BoxFuture, RegistryError, Updates};
use buttress::error::Reason;
use buttress::observe::{Event, Observe};
use buttress::registries::consul::Consul;
use buttress::registries::file::File;
use buttress::registries::memory::Memory;
use buttress::transport::http::deadline::SendDeadlineLayer;
use buttress::transport::http::{Attempts, HttpRules};
use buttress::transport::reqwest::{Client, ClientError};
use buttress::{Deadline, Instance, Registry, Rejected, Resolver, clock};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_call_finds_an_instance_by_name_and_keeps_its_host() {
    let registry = Memory::new();
    let server = Server::start(|request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        format!("{host} {}", request.uri())
    });
    register(&registry, "orders", &server.await).await;
    let client = client(&registry);

    assert_eq!(
        text(client.get("http://orders/a?b=c")).await,
        "orders /a?b=c"
    );
    assert_eq!(text(client.get("http://orders:99/")).await, "orders:99 /");
    let named = client.get("http://orders/").header("host", "shop.example");
    assert_eq!(text(named).await, "shop.example /");
}

#[tokio::test]
async fn each_attempt_goes_to_an_instance_not_yet_tried() {
    let registry = Memory::new();
    let mut servers = Vec::new();
    for status in [503, 502, 200] {
        let server = Server::status(status).await;
        register(&registry, "orders", &server).await;
        servers.push(server);
    }
    for calls in 1..=10 {
        // Each client anew, so that none has learnt whom to avoid.
        let answer = client(&registry).get("http://orders/").send().await;
        assert_eq!(answer.unwrap().status(), 200);
        for server in &servers {
            assert!(server.calls() <= calls, "an instance was tried twice");
        }
        assert_eq!(servers[2].calls(), calls);
    }
}

#[tokio::test]
async fn what_is_not_safe_to_repeat_is_sent_once() {
    let registry = Memory::new();
    let server = Server::status(503).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry);

    client.post("http://orders/").send().await.unwrap();
    assert_eq!(server.calls(), 1);
    let keyed = client.post("http://orders/").idempotency_key(7);
    assert_eq!(keyed.send().await.unwrap().status(), 503);
    assert_eq!(server.calls(), 1 + 3);
}

/// A body whose length nobody knows beforehand.
fn stream(parts: [&'static str; 2]) -> reqwest::Body {
    let parts = parts.map(Ok::<_, std::io::Error>);
    reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
}

#[tokio::test]
async fn a_streamed_body_is_sent_again_and_one_above_the_limit_once() {
    for (limit, expected) in [(3, 3), (2, 3), (1, 1)] {
        let bodies: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = bodies.clone();
        let server = Server::start(move |request| {
            let log = log.clone();
            async move {
                let body = axum::body::to_bytes(request.into_body(), 100).await;
                log.lock().unwrap().push(body.unwrap());
                StatusCode::SERVICE_UNAVAILABLE
            }
        })
        .await;
        let registry = Memory::new();
        register(&registry, "orders", &server).await;
        let rules = HttpRules::new().replay_limit(limit);
        let request = client(&registry).http_rules(rules).put("http://orders/");
        let request = request.body(stream(["a", "b"]));
        assert_eq!(request.send().await.unwrap().status(), 503);
        assert_eq!(server.calls(), expected);
        assert!(bodies.lock().unwrap().iter().all(|body| body == "ab"));
    }
}

#[tokio::test]
async fn the_peer_is_told_which_attempt_it_sees_and_the_caller_how_many_there_were() {
    let counts: Arc<Mutex<Vec<_>>> = Arc::default();
    let log = counts.clone();
    let server = Server::start(move |request: Request| {
        let count = request.headers().get("x-envoy-attempt-count").cloned();
        log.lock().unwrap().push(count);
        async { StatusCode::SERVICE_UNAVAILABLE }
    })
    .await;
    let registry = Memory::new();
    register(&registry, "orders", &server).await;
    let name = HeaderName::from_static("x-envoy-attempt-count");
    let client = client(&registry).http_rules(HttpRules::new().attempt_header(name));
    let answer = client.get("http://orders/").send().await.unwrap();
    assert_eq!(answer.extensions().get(), Some(&Attempts(3)));
    let counts = counts.lock().unwrap();
    let expected = ["1", "2", "3"].map(|n| Some(n.parse().unwrap()));
    assert_eq!(*counts, expected);
}

#[tokio::test]
async fn the_wait_before_a_retry_is_what_retry_after_asks_for() {
    let calls: Arc<Mutex<Vec<_>>> = Arc::default();
    let log = calls.clone();
    let server = Server::start(move |_| {
        log.lock().unwrap().push(clock::now());
        async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]) }
    })
    .await;
    let registry = Memory::new();
    register(&registry, "orders", &server).await;
    let client = client(&registry).policy("orders", Policy::new().attempts(2));
    client.get("http://orders/").send().await.unwrap();
    let calls = calls.lock().unwrap();
    let wait = calls[1] - calls[0];
    assert!(
        wait >= Duration::from_secs(1) && wait < Duration::from_secs(2),
        "{wait:?}"
    );
}

#[tokio::test]
async fn a_post_whose_connection_failed_is_tried_elsewhere() {
    let registry = Memory::new();
    register_at(&registry, "orders", nobody().await).await;
    let server = Server::status(200).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry);
    for _ in 0..8 {
        let answer = client.post("http://orders/").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(server.calls(), 8);
}

#[tokio::test]
async fn the_error_of_the_last_attempt_is_reqwests_own() {
    let registry = Memory::new();
    register_at(&registry, "orders", nobody().await).await;
    let error = client(&registry)
        .get("http://orders/")
        .send()
        .await
        .unwrap_err();
    let error = error.into_inner().expect("the error of the transport");
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn a_name_that_nobody_registered_says_who_was_asked() {
    let error = client(&Memory::new())
        .get("http://nobody/")
        .send()
        .await
        .unwrap_err();
    let rejected = rejected(&error);
    assert_eq!(rejected.reason(), Reason::Unresolved);
    assert_eq!(rejected.name(), Some("nobody"));
    let text = with_causes(&error);
    assert!(text.contains("memory"), "{text}");
}

#[tokio::test]
async fn a_host_that_cannot_be_a_service_is_refused() {
    let client = client(&Memory::new());
    for url in ["http://127.0.0.1:1/", "http://[::1]:1/"] {
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(rejected(&error).reason(), Reason::NoService, "{url}");
    }
}

#[tokio::test]
async fn passing_through_is_for_hosts_that_are_no_services() {
    let registry = Memory::new();
    let outside = Server::start(|_| async { "outside" }).await;
    let inside = Server::start(|_| async { "inside" }).await;
    register(&registry, "orders", &inside).await;
    let client = client(&registry).pass_through();

    assert_eq!(text(client.get("http://orders/")).await, "inside");
    let by_address = format!("http://{}/", outside.address);
    assert_eq!(text(client.get(by_address)).await, "outside");
    let by_name = format!("http://localhost:{}/", outside.address.port());
    assert_eq!(text(client.get(by_name)).await, "outside");
}

#[tokio::test]
async fn nothing_passes_through_while_no_registry_can_be_asked() {
    let registry = Memory::new();
    registry.set_down(true);
    let resolver = Resolver::new(registry).first_answer(Duration::from_millis(50));
    let client = Client::new(reqwest::Client::new(), resolver).pass_through();
    let error = client.get("http://localhost:1/").send().await.unwrap_err();
    assert!(with_causes(&error).contains("it is down"), "{error:?}");
}

#[tokio::test]
async fn nothing_passes_through_while_one_registry_of_several_cannot_be_asked() {
    let outside = Server::status(200).await;
    let down = Memory::new();
    down.set_down(true);
    let url = format!("http://localhost:{}/", outside.address.port());
    for resolver in [
        Resolver::new(down.clone()).or(Memory::new()),
        Resolver::new(Memory::new()).or(down),
    ] {
        let resolver = resolver.first_answer(Duration::from_millis(50));
        let client = Client::new(reqwest::Client::new(), resolver).pass_through();
        let error = client.get(&url).send().await.unwrap_err();
        assert!(with_causes(&error).contains("it is down"), "{error:?}");
    }
    assert_eq!(outside.calls(), 0);
}

#[tokio::test]
async fn a_service_whose_last_instance_has_gone_is_not_called_outside() {
    let registry = Memory::new();
    let server = Server::status(200).await;
    register(&registry, "localhost", &server).await;
    let client = client(&registry).pass_through();
    let url = format!("http://localhost:{}/", server.address.port());
    client.get(&url).send().await.unwrap();
    let gone = Instance::new(server.address.to_string(), "127.0.0.1", 80);
    registry.deregister("localhost", &gone).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = client.get(&url).send().await.unwrap_err();
    assert_eq!(rejected(&error).reason(), Reason::Unresolved);
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_host_known_to_be_outside_passes_through_in_an_outage() {
    let registry = Memory::new();
    let outside = Server::status(200).await;
    let client = client(&registry).pass_through();
    let url = format!("http://localhost:{}/", outside.address.port());
    client.get(&url).send().await.unwrap();
    registry.set_down(true);
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.get(&url).send().await.unwrap();
}

#[tokio::test]
async fn the_total_timeout_bounds_the_question_whether_a_host_is_outside() {
    let limit = Duration::from_millis(50);
    let client = Client::new(reqwest::Client::new(), Resolver::new(Silent))
        .default_policy(Policy::new().timeout(limit))
        .pass_through();
    let begun = clock::now();
    let error = client.get("http://orders/").send().await.unwrap_err();
    assert!(clock::now() - begun < Duration::from_secs(1), "{error:?}");
}

#[test]
fn a_client_outlives_the_runtime_that_it_was_first_used_in() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let registry = Memory::new();
    let resolver = Resolver::new(registry.clone());
    let client = Client::new(reqwest::Client::new(), resolver);
    for _ in 0..2 {
        runtime().block_on(async {
            let server = Server::status(200).await;
            registry.clear();
            register(&registry, "orders", &server).await;
            let answer = client.get("http://orders/").send().await.unwrap();
            assert_eq!(answer.status(), 200);
        });
    }
}

#[tokio::test]
async fn the_case_of_a_services_name_does_not_matter() {
    let registry = Memory::new();
    let server = Server::status(200).await;
    register(&registry, "Orders", &server).await;
    let client = client(&registry).policy("Orders", Policy::new().outstanding(7));
    for url in ["http://orders/", "http://ORDERS/"] {
        assert_eq!(client.get(url).send().await.unwrap().status(), 200);
    }
    assert_eq!(client.service("orders").bulkhead().limit(), 7);
    client.service("oRders").breaker().force_open();
    let error = client.get("http://Orders/").send().await.unwrap_err();
    assert_eq!(rejected(&error).reason(), Reason::ForcedOpen);
}

#[tokio::test]
async fn an_instance_whose_address_is_none_does_not_cost_calls() {
    let registry = Memory::new();
    let server = Server::status(200).await;
    register(&registry, "orders", &server).await;
    let broken = Instance::new("broken", "no host", 80);
    let ttl = Duration::from_secs(3600);
    registry.register("orders", &broken, ttl).await.unwrap();
    let client = client(&registry);
    for _ in 0..40 {
        let answer = client.post("http://orders/").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let views = client.service("orders").instances();
    let latency = |id: &str| {
        views
            .iter()
            .find(|view| view.instance.id == id)
            .unwrap()
            .latency
    };
    assert!(latency("broken") > 3 * latency(&server.address.to_string()));
}

#[tokio::test]
async fn the_total_timeout_bounds_all_attempts() {
    let registry = Memory::new();
    let server = Server::start(|_| std::future::pending::<&str>()).await;
    register(&registry, "orders", &server).await;
    let policy = Policy::new()
        .timeout(Duration::from_millis(300))
        .attempt_timeout(Duration::from_millis(50))
        .backoff(Backoff::constant(Duration::from_millis(1)))
        .attempts(100);
    let client = client(&registry).policy("orders", policy);

    let error = client.get("http://orders/").send().await.unwrap_err();
    assert!(rejected(&error).is_timeout(), "{error:?}");
    assert!(
        server.calls() >= 2,
        "the timeout of an attempt ended the call"
    );
}

#[tokio::test]
async fn the_timeout_of_a_request_bounds_the_whole_call() {
    let registry = Memory::new();
    let server = Server::start(|_| std::future::pending::<&str>()).await;
    register(&registry, "orders", &server).await;
    let request = client(&registry).get("http://orders/");
    let error = request
        .timeout(Duration::from_millis(50))
        .send()
        .await
        .unwrap_err();
    assert!(rejected(&error).is_timeout(), "{error:?}");
}

/// What an observer heard of refusals.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Refused(rejected) = event {
            self.0.lock().unwrap().push(rejected.to_string());
        }
    }
}

#[tokio::test]
async fn an_attempt_that_timed_out_is_told_to_the_observer_with_its_instance() {
    let registry = Memory::new();
    let hangs = Server::start(|_| std::future::pending::<&str>()).await;
    register(&registry, "orders", &hangs).await;
    let heard = Heard::default();
    let policy = Policy::new()
        .attempt_timeout(Duration::from_millis(50))
        .attempts(2);
    let client = client(&registry)
        .policy("orders", policy)
        .observe(heard.clone());
    let error = client.get("http://orders/").send().await.unwrap_err();
    let told = heard.0.lock().unwrap().clone();
    let expected = format!(
        "attempt timeout `orders at {}` gave up after 50ms",
        hangs.address
    );
    assert_eq!(told, [expected.clone(), expected]);
    assert_eq!(error.to_string(), told[1]);
    assert_eq!(rejected(&error).name(), Some("orders"));
    assert_eq!(
        rejected(&error).instance(),
        Some(&*hangs.address.to_string())
    );
}

#[tokio::test]
async fn a_call_given_up_says_whose_it_was_and_the_observer_hears_of_it() {
    let registry = Memory::new();
    let server = Server::start(|_| std::future::pending::<&str>()).await;
    register(&registry, "orders", &server).await;
    let heard = Heard::default();
    let policy = Policy::new().timeout(Duration::from_millis(100));
    let client = client(&registry)
        .policy("orders", policy)
        .observe(heard.clone());
    let id = server.address;
    for _ in 0..8 {
        let error = client.get("http://orders/").send().await.unwrap_err();
        assert_eq!(error.to_string(), "timeout `orders` gave up after 100ms");
        let told = std::mem::take(&mut *heard.0.lock().unwrap());
        let attempt = format!("attempt timeout `orders at {id}`: the deadline has passed");
        assert_eq!(told, [attempt, error.to_string()]);
    }
    let request = client
        .get("http://orders/")
        .timeout(Duration::from_millis(50));
    let error = request.send().await.unwrap_err();
    assert_eq!(error.to_string(), "timeout `orders` gave up after 50ms");
}

#[tokio::test]
async fn each_attempt_says_in_its_headers_how_long_it_has_if_asked_to() {
    let registry = Memory::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let server = Server::start({
        let told = told.clone();
        move |request: Request| {
            let said = request.headers().get("x-request-timeout-ms");
            let said = said.map(|it| it.to_str().unwrap().parse::<u128>().unwrap());
            told.lock().unwrap().push(said);
            async { StatusCode::SERVICE_UNAVAILABLE }
        }
    })
    .await;
    register(&registry, "orders", &server).await;
    let policy = Policy::new()
        .attempt_timeout(Duration::from_secs(2))
        .attempts(2);
    let quiet = client(&registry).policy("orders", policy.clone());
    quiet.get("http://orders/").send().await.unwrap();
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [None, None]);

    let margin = Duration::from_millis(500);
    let client = quiet.send_deadlines(SendDeadlineLayer::new().margin(margin));
    client.get("http://orders/").send().await.unwrap();
    let attempts = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(attempts.len(), 2);
    for left in attempts {
        let left = left.expect("told");
        assert!((1..=1500).contains(&left), "{left}");
    }

    // The whole call's, where that is nearer; and nothing is sent that the margin leaves no time for.
    let request = client.get("http://orders/").timeout(Duration::from_secs(1));
    request.send().await.unwrap();
    let left = told.lock().unwrap().pop().unwrap().expect("told");
    assert!((1..=500).contains(&left), "{left}");
    let calls = server.calls();
    let request = client.get("http://orders/").timeout(margin);
    let error = request.send().await.unwrap_err();
    assert!(rejected(&error).is_timeout() && rejected(&error).never_sent());
    assert_eq!(server.calls(), calls);
}

#[tokio::test]
async fn the_deadline_bounds_the_body_too() {
    let registry = Memory::new();
    let server = Server::start(|_| async {
        axum::body::Body::from_stream(futures_util::stream::pending::<Result<&str, BoxError>>())
    });
    register(&registry, "orders", &server.await).await;
    let client = client(&registry);
    let answer = Deadline::within(Duration::from_millis(300))
        .scope(client.get("http://orders/").send())
        .await
        .unwrap();
    let error = answer.text().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_breaker_is_steered_by_the_services_name() {
    let registry = Memory::new();
    let server = Server::status(200).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry);
    let orders = client.service("orders");

    orders.breaker().force_open();
    let error = client.get("http://orders/").send().await.unwrap_err();
    assert_eq!(rejected(&error).reason(), Reason::ForcedOpen);
    orders.breaker().close();
    client.get("http://orders/").send().await.unwrap();
    assert_eq!(orders.instances().len(), 1);
}

#[tokio::test]
async fn the_retries_of_a_service_are_stopped_and_allowed_again_by_its_name() {
    let registry = Memory::new();
    let server = Server::status(503).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry).policy("orders", Policy::new().attempts(2));
    let service = client.service("orders");
    let budget = service.retry_budget();
    assert_eq!((budget.share(), budget.floor()), (0.2, 3));

    budget.reconfigure(0.0, 0);
    client.get("http://orders/").send().await.unwrap();
    assert_eq!(server.calls(), 1);
    budget.reconfigure(0.2, 3);
    client.get("http://orders/").send().await.unwrap();
    assert_eq!((server.calls(), budget.available()), (3, 29));
}

#[tokio::test]
async fn answers_of_500_open_the_breaker() {
    let registry = Memory::new();
    let server = Server::status(500).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry);
    for _ in 0..200 {
        let _ = client.get("http://orders/").send().await;
    }
    let error = client.get("http://orders/").send().await.unwrap_err();
    assert!(rejected(&error).is_open(), "{error:?}");
    assert!(server.calls() < 200);
}

#[tokio::test]
async fn calls_above_the_limit_are_refused() {
    let registry = Memory::new();
    let server = Server::start(|_| std::future::pending::<&str>()).await;
    register(&registry, "orders", &server).await;
    let client = client(&registry).policy("orders", Policy::new().outstanding(1));
    let first = tokio::spawn(client.get("http://orders/").send());
    while server.calls() == 0 {
        tokio::task::yield_now().await;
    }
    let error = client.get("http://orders/").send().await.unwrap_err();
    assert_eq!(rejected(&error).reason(), Reason::Full { limit: 1 });
    first.abort();
}

#[tokio::test]
async fn a_process_that_starts_while_the_registry_is_down_serves_from_the_file_behind_it() {
    let server = Server::status(200).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.toml");
    let port = server.address.port();
    let text = format!("[[instances.orders]]\nhost = '127.0.0.1'\nport = {port}\n");
    std::fs::write(&path, text).unwrap();
    let consul = Consul::new(&format!("http://{}", nobody().await)).unwrap();
    let resolver = Resolver::new(consul).or(File::new(&path));
    let client = Client::new(reqwest::Client::new(), resolver);

    let answer = client.get("http://orders/").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let error = client.get("http://typo/").send().await.unwrap_err();
    let text = with_causes(&error);
    assert!(text.contains("consul at http://127.0.0.1:"), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(text.contains("peers.toml: knows no such service"), "{text}");
}

#[tokio::test]
async fn an_error_shows_neither_the_password_nor_the_query_of_its_url() {
    let registry = Memory::new();
    register_at(&registry, "orders", nobody().await).await;
    let url = "http://user:hunter2@orders/7?token=hunter3";
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
    let error = client(&registry).execute(request).await.unwrap_err();
    let text = format!("{error:?} {}", with_causes(&error));
    assert!(text.contains("/7"), "{text}");
    assert!(!text.contains("hunter"), "{text}");

    let request = client(&registry).get("mailto:orders?token=hunter4");
    let error = request.send().await.unwrap_err();
    let text = format!("{error:?} {}", with_causes(&error));
    assert!(!text.contains("hunter"), "{text}");
}

type BoxError = buttress::BoxError;

/// An address where nothing listens.
async fn nobody() -> SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gone.local_addr().unwrap()
}

fn client(registry: &Memory) -> Client {
    let resolver = Resolver::new(registry.clone());
    Client::new(reqwest::Client::new(), resolver)
}

async fn text(request: buttress::transport::reqwest::RequestBuilder) -> String {
    request.send().await.unwrap().text().await.unwrap()
}

fn rejected(error: &ClientError) -> &Rejected {
    Rejected::find(error).unwrap_or_else(|| panic!("no refusal: {error:?}"))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(with_causes).unwrap_or_default();
    format!("{error}: {cause}")
}

async fn register(registry: &Memory, service: &str, server: &Server) {
    register_at(registry, service, server.address).await;
}

async fn register_at(registry: &Memory, service: &str, address: SocketAddr) {
    let instance = Instance::new(
        address.to_string(),
        address.ip().to_string(),
        address.port(),
    );
    let ttl = Duration::from_secs(3600);
    registry.register(service, &instance, ttl).await.unwrap();
}

/// A registry that never answers.
struct Silent;

impl Registry for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn watch(&self, _: &str, _: Updates) -> BoxFuture<'static, RegistryError> {
        Box::pin(std::future::pending())
    }
}

/// A server that counts its calls.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Server {
    async fn start<F, Fut, Res>(answer: F) -> Self
    where
        F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Res> + Send + 'static,
        Res: IntoResponse + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let app = Router::new().fallback(move |request: Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            answer(request)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, calls }
    }

    async fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self::start(move |_| async move { status }).await
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}
