//! Every layer around the routes of an `axum` server, which refuse with proper answers: each layer alone, then a stack.
//!
//! `cargo run --example wrap_axum` starts the server on a free port, calls each route twice, and says what came back.
#![allow(clippy::print_stdout)] // It talks to whoever started it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use buttress::BoxError;
use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Adaptive;
use buttress::algo::throttle;
use buttress::layers::bulkhead::{Bulkhead, Permit};
use buttress::layers::chaos::Chaos;
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::coalesce::CoalesceLayer;
use buttress::layers::concurrency::ConcurrencyLimit;
use buttress::layers::fallback::FallbackLayer;
use buttress::layers::hedge::HedgeLayer;
use buttress::layers::rate_limit::RateLimiter;
use buttress::layers::retry::RetryLayer;
use buttress::layers::throttle::Throttle;
use buttress::layers::timeout::TimeoutLayer;
use buttress::pipeline::PipelineLayer;
use buttress::transport::axum::respond;
use buttress::transport::http::{HeldBody, HttpRules, ReplayBody};
use http_body_util::{BodyExt, Full};
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;

const SECOND: Duration = Duration::from_secs(1);

/// What the layers of a route need around them: an answer for every error, and an error type that can hold a refusal.
macro_rules! behind {
    ($($layer:expr),+) => {
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(respond))
            $(.layer($layer))+
            .map_err(BoxError::from)
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let bulkhead = Bulkhead::new("downloads", 10);
    let concurrency = ConcurrencyLimit::new("web", Adaptive::new(20));
    let limiter = RateLimiter::new("web", Limit::new(1, SECOND));
    let tenants = RateLimiter::per_key("tenants", Limit::new(1, SECOND), 1000);
    let breaker = CircuitBreaker::new("database", Settings::default());
    let throttle = Throttle::new("database", throttle::Throttle::default());
    let chaos = Chaos::new("web", 42);
    let open = CircuitBreaker::new("database", Settings::default());
    open.force_open();

    let app = Router::new()
        .route(
            "/timeout",
            get(slow).layer(behind!(TimeoutLayer::new(SECOND / 50))),
        )
        // The slot comes back when the body has been sent.
        .route(
            "/bulkhead",
            get(hello).layer(behind!(bulkhead.layer().hold(hold))),
        )
        .route(
            "/concurrency",
            get(hello).layer(behind!(concurrency.layer().classify(HttpRules::new()))),
        )
        .route("/rate_limit", get(hello).layer(behind!(limiter.layer())))
        .route(
            "/rate_limit/tenant",
            get(hello).layer(behind!(tenants.layer_by(tenant))),
        )
        .route(
            "/circuit_breaker",
            get(hello).layer(behind!(breaker.layer().classify(HttpRules::new()))),
        )
        .route(
            "/circuit_breaker/open",
            get(hello).layer(behind!(open.layer())),
        )
        .route(
            "/throttle",
            get(hello).layer(behind!(throttle.layer().classify(HttpRules::new()))),
        )
        .route("/chaos", get(hello).layer(behind!(chaos.layer())))
        .route(
            "/fallback",
            get(hello).layer(behind!(FallbackLayer::from_fn(sorry), open.layer())),
        )
        // A body that is to be sent twice is kept while it is.
        .route(
            "/retry",
            get(hello).layer(behind!(
                MapRequestLayer::new(replayed),
                RetryLayer::new(3).rules(HttpRules::new())
            )),
        )
        .route(
            "/hedge",
            get(hello).layer(behind!(
                MapRequestLayer::new(replayed),
                HedgeLayer::new(SECOND)
                    .copy(HttpRules::new())
                    .classify(HttpRules::new())
            )),
        )
        .route(
            "/pipeline",
            get(hello).layer(behind!(
                MapRequestLayer::new(replayed),
                PipelineLayer::new(
                    FallbackLayer::from_fn(sorry),
                    RetryLayer::new(3).rules(HttpRules::new()),
                    breaker.layer().classify(HttpRules::new()),
                    bulkhead.layer(),
                    TimeoutLayer::new(SECOND),
                )
            )),
        )
        // One that is to answer several is read first.
        .route(
            "/coalesce",
            get(hello).layer(
                ServiceBuilder::new()
                    .layer(HandleErrorLayer::new(respond))
                    .layer(CoalesceLayer::new(|request: &Request| {
                        request.uri().clone()
                    }))
                    .and_then(read_response)
                    .map_err(BoxError::from),
            ),
        )
        .route(
            "/stack",
            get(hello).layer(behind!(
                FallbackLayer::from_fn(sorry),
                TimeoutLayer::new(SECOND),
                RateLimiter::per_key("tenants", Limit::new(100, SECOND), 1000).layer_by(tenant),
                RateLimiter::new("web", Limit::new(1000, SECOND)).layer(),
                concurrency.layer(),
                throttle.layer(),
                breaker.layer(),
                chaos.layer()
            )),
        );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::new();
    let alone = [
        "timeout",
        "bulkhead",
        "concurrency",
        "rate_limit",
        "rate_limit/tenant",
        "circuit_breaker",
        "circuit_breaker/open",
        "throttle",
        "chaos",
        "fallback",
        "retry",
        "hedge",
        "coalesce",
    ];
    for path in alone.into_iter().chain(["stack"]) {
        for _ in 0..2 {
            let response = client
                .get(format!("{server}/{path}"))
                .header("tenant", path)
                .send()
                .await?;
            let status = response.status();
            let after = response.headers().get("retry-after").cloned();
            let text = response.text().await?;
            println!("{path:22}{} {text} {after:?}", status.as_u16());
        }
    }
    Ok(())
}

async fn hello() -> &'static str {
    "hello"
}

async fn slow() {
    tokio::time::sleep(SECOND / 20).await;
}

fn tenant(request: &Request) -> Vec<u8> {
    let tenant = request.headers().get("tenant");
    tenant.map(|it| it.as_bytes().to_vec()).unwrap_or_default()
}

fn hold(response: Response, permit: Permit) -> Response<HeldBody<Body, Permit>> {
    response.map(|body| HeldBody::new(body, permit))
}

fn sorry(failed: Result<Response, BoxError>) -> Result<Response, BoxError> {
    Ok(failed.unwrap_or_else(|error| format!("not now: {error}").into_response()))
}

fn replayed(request: Request) -> Request<ReplayBody<Body>> {
    request.map(|body| ReplayBody::new(body, 64 * 1024))
}

async fn read_response(response: Response) -> Result<Response<Full<Bytes>>, BoxError> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}
