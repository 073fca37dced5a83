//! Every layer around a `reqwest::Client`: each alone, then a stack of them.
//!
//! `cargo run --example wrap_reqwest` starts a server on a free port, calls it through each, and says what came back.
//! The client that finds its peers by name has a stack of its own: `buttress::transport::reqwest::Client`.
#![allow(clippy::print_stdout)] // It talks to whoever started it.

use std::time::Duration;

use axum::{Router, routing::get};
use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Adaptive;
use buttress::algo::throttle;
use buttress::error::{Error, Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
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
use buttress::transport::http::HttpRules;
use buttress::transport::reqwest::ClientError;
use buttress::{BoxError, ErrorLayer};
use reqwest::{Request, Response};
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    let app = Router::new().route("/hello", get(|| async { "hello" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::new();
    let request = client.get(url).build()?;

    let bulkhead = Bulkhead::new("hello", 10);
    let concurrency = ConcurrencyLimit::new("hello", Adaptive::new(20));
    let limiter = RateLimiter::new("hello", Limit::new(100, SECOND));
    let by_host = RateLimiter::per_key("hosts", Limit::new(100, SECOND), 1000);
    let breaker = CircuitBreaker::new("hello", Settings::default());
    let throttle = Throttle::new("hello", throttle::Throttle::default());
    let chaos = Chaos::new("hello", 42);
    let rules = HttpRules::new;
    let host = |request: &Request| request.url().authority().to_owned();
    let same = |request: &Request| (request.method().clone(), request.url().clone());
    let otherwise = |failed: Result<Response, ClientError>| {
        failed.or_else(|_| Ok(http::Response::new("not now").into()))
    };
    // `reqwest` lets nobody make its errors. Time that ran out is one that counts as the peer's.
    let fault = || Error::from(Rejected::new("chaos", Reason::DeadlineExceeded));

    macro_rules! alone {
        ($($name:literal: $layer:expr;)*) => {
            $({
                let service = ServiceBuilder::new().layer($layer).layer(ErrorLayer);
                call($name, service.service(client.clone()), &request).await;
            })*
        };
    }
    alone! {
        "timeout": TimeoutLayer::new(SECOND);
        "bulkhead": bulkhead.layer();
        "concurrency": concurrency.layer().classify(rules());
        "rate_limit": limiter.layer();
        "rate_limit by host": by_host.layer_by(host);
        "circuit_breaker": breaker.layer().classify(rules());
        "retry": RetryLayer::new(3).rules(rules());
        "hedge": HedgeLayer::new(SECOND).copy(rules()).classify(rules());
        "fallback": FallbackLayer::from_fn(otherwise);
        "pipeline": PipelineLayer::new(
            FallbackLayer::from_fn(otherwise),
            RetryLayer::new(3).rules(rules()),
            breaker.layer().classify(rules()),
            bulkhead.layer(),
            TimeoutLayer::new(SECOND),
        );
        "throttle": throttle.layer().classify(rules());
        "chaos": chaos.layer().error(fault);
    }

    let stack = ServiceBuilder::new()
        .layer(FallbackLayer::from_fn(otherwise))
        .layer(TimeoutLayer::new(SECOND))
        .layer(by_host.layer_by(host))
        .layer(limiter.layer())
        .layer(bulkhead.layer())
        .layer(RetryLayer::new(3).rules(rules()))
        .layer(concurrency.layer().classify(rules()))
        .layer(throttle.layer().classify(rules()))
        .layer(breaker.layer().classify(rules()))
        .layer(HedgeLayer::new(SECOND / 4).copy(rules()).classify(rules()))
        .layer(TimeoutLayer::new(SECOND / 2))
        .layer(chaos.layer().error(fault))
        .layer(ErrorLayer)
        .service(client.clone());
    call("a stack of all", stack.clone(), &request).await;

    // An answer for several callers is read first; their errors are shared.
    let shared = ServiceBuilder::new()
        .layer(CoalesceLayer::new(same))
        .map_err(BoxError::from)
        .and_then(async |response: Response| response.text().await.map_err(ClientError::Inner))
        .service(stack);
    let copy = |request: &Request| request.try_clone().ok_or("a body that cannot be copied");
    let both = tokio::join!(
        shared.clone().oneshot(copy(&request)?),
        shared.oneshot(copy(&request)?),
    );
    println!("{:20} {:?}", "coalesce", both);

    breaker.force_open();
    let refusing = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(ErrorLayer);
    call("forced open", refusing.service(client), &request).await;
    Ok(())
}

async fn call<S>(name: &str, service: S, request: &Request)
where
    S: Service<Request, Response = Response, Error = ClientError>,
{
    let Some(request) = request.try_clone() else {
        return;
    };
    match service.oneshot(request).await {
        Ok(response) => println!(
            "{name:20} {} {:?}",
            response.status(),
            response.text().await
        ),
        Err(Error::Rejected(rejected)) => println!("{name:20} refused: {rejected}"),
        Err(Error::Inner(error)) => println!("{name:20} failed: {error}"),
    }
}
