//! Every layer around `hyper-util`'s client: each alone, then a stack of them.
//!
//! `cargo run --example wrap_hyper` starts a server on a free port, calls it through each, and says what came back.
#![allow(clippy::print_stdout)] // It talks to whoever started it.

use std::fmt::Display;
use std::time::Duration;

use axum::{Router, body::Bytes, routing::get};
use buttress::BoxError;
use buttress::algo::breaker::Settings;
use buttress::algo::gcra::Limit;
use buttress::algo::limit::Adaptive;
use buttress::algo::throttle;
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
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    let app = Router::new().route("/hello", get(|| async { "hello" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let request = Request::get(url).body(Full::<Bytes>::default())?;

    // The error type can hold a refusal, and the body is read inside, so that every layer sees its failures too.
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .and_then(read)
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let bulkhead = Bulkhead::new("hello", 10);
    let concurrency = ConcurrencyLimit::new("hello", Adaptive::new(20));
    let limiter = RateLimiter::new("hello", Limit::new(100, SECOND));
    let by_host = RateLimiter::per_key("hosts", Limit::new(100, SECOND), 1000);
    let breaker = CircuitBreaker::new("hello", Settings::default());
    let throttle = Throttle::new("hello", throttle::Throttle::default());
    let chaos = Chaos::new("hello", 42);
    let rules = HttpRules::new;
    let host = |request: &Request<Full<Bytes>>| request.uri().authority().cloned();
    let same = |request: &Request<Full<Bytes>>| (request.method().clone(), request.uri().clone());
    let otherwise = |failed: Answer| failed.or_else(|_| Ok(Response::new("not now".into())));

    macro_rules! alone {
        ($($name:literal: $layer:expr;)*) => {
            $(call($name, ServiceBuilder::new().layer($layer).service(client.clone()), &request).await;)*
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
        "coalesce": CoalesceLayer::new(same);
        "pipeline": PipelineLayer::new(
            FallbackLayer::from_fn(otherwise),
            RetryLayer::new(3).rules(rules()),
            breaker.layer().classify(rules()),
            bulkhead.layer(),
            TimeoutLayer::new(SECOND),
        );
        "throttle": throttle.layer().classify(rules());
        "chaos": chaos.layer();
    }

    let stack = ServiceBuilder::new()
        .layer(FallbackLayer::from_fn(otherwise))
        .layer(CoalesceLayer::new(same))
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
        .layer(chaos.layer())
        .service(client.clone());
    call("a stack of all", stack, &request).await;

    breaker.force_open();
    let refusing = ServiceBuilder::new().layer(breaker.layer()).service(client);
    call("forced open", refusing, &request).await;
    Ok(())
}

type Answer = Result<Response<Bytes>, BoxError>;

async fn read(response: Response<impl Body<Error: Into<BoxError>>>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

async fn call<S>(name: &str, service: S, request: &Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Bytes>, Error: Display>,
{
    match service.oneshot(request.clone()).await {
        Ok(response) => println!("{name:20} {} {:?}", response.status(), response.body()),
        Err(error) => println!("{name:20} {error}"),
    }
}
