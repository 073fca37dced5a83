//! Every layer around a `tonic` channel, and around the calls of a client: each alone, then a stack of them; and a
//! server that refuses.
//!
//! `cargo run --example wrap_tonic` starts a server on a free port, calls it through each, and says what came back.
#![allow(clippy::print_stdout)] // It talks to whoever started it.

use std::time::Duration;

use axum::{Router, extract, routing::post};
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
use buttress::transport::http::ReplayBody;
use buttress::transport::tonic::{GrpcRules, status};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::service::Routes;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tonic_prost::ProstCodec;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let channel = Endpoint::from_shared(start_server().await?)?.connect_lazy();

    let bulkhead = Bulkhead::new("greeter", 10);
    let concurrency = ConcurrencyLimit::new("greeter", Adaptive::new(20));
    let limiter = RateLimiter::new("greeter", Limit::new(100, SECOND));
    let by_method = RateLimiter::per_key("methods", Limit::new(100, SECOND), 1000);
    let by_tenant = RateLimiter::per_key("tenants", Limit::new(100, SECOND), 1000);
    let breaker = CircuitBreaker::new("greeter", Settings::default());
    let throttle = Throttle::new("greeter", throttle::Throttle::default());
    let chaos = Chaos::new("greeter", 42);
    let rules = GrpcRules::new;
    let method = |request: &http::Request<Body>| request.uri().path().to_owned();

    println!("around the channel: every method of every client");
    macro_rules! channel {
        ($($name:literal: $layer:expr;)*) => {
            $({
                let service = ServiceBuilder::new().layer($layer).map_err(status);
                call($name, client(service.service(channel.clone()))).await;
            })*
        };
    }
    channel! {
        "timeout": TimeoutLayer::new(SECOND);
        "bulkhead": bulkhead.layer();
        "concurrency": concurrency.layer().classify(rules());
        "rate_limit": limiter.layer();
        "rate_limit by method": by_method.layer_by(method);
        "circuit_breaker": breaker.layer().classify(rules());
        "fallback": FallbackLayer::from_fn(|failed: Result<http::Response<Body>, Status>| failed);
        "throttle": throttle.layer().classify(rules());
        "chaos": chaos.layer();
    }
    // A body that is to be sent twice is kept while it is.
    macro_rules! sent_twice {
        ($($name:literal: $layer:expr;)*) => {
            $({
                let service = ServiceBuilder::new()
                    .map_request(replayed)
                    .layer($layer)
                    .map_request(|request: http::Request<ReplayBody<_>>| request.map(Body::new))
                    .map_err(status);
                call($name, client(service.service(channel.clone()))).await;
            })*
        };
    }
    sent_twice! {
        "retry": RetryLayer::new(3).rules(rules());
        "hedge": HedgeLayer::new(SECOND).copy(rules()).classify(rules());
    }

    println!("around the calls of a client: its messages, and every status");
    let tenant = |request: &Request<Hello>| request.metadata().get("tenant").cloned();
    let same = |request: &Request<Hello>| request.get_ref().name.clone();
    let otherwise = |failed: Result<Response<Reply>, Status>| {
        failed.or_else(|_| Ok(Response::new(Reply::default())))
    };
    let hello = client(ServiceBuilder::new().map_err(status).service(channel));
    macro_rules! calls {
        ($($name:literal: $layer:expr;)*) => {
            $(call($name, ServiceBuilder::new().layer($layer).service(hello.clone())).await;)*
        };
    }
    calls! {
        "timeout": TimeoutLayer::new(SECOND);
        "bulkhead": bulkhead.layer();
        "concurrency": concurrency.layer().classify(rules());
        "rate_limit": limiter.layer();
        "rate_limit by tenant": by_tenant.layer_by(tenant);
        "circuit_breaker": breaker.layer().classify(rules());
        "retry": RetryLayer::new(3).rules(rules().retry_code(Code::Aborted));
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
        "chaos": chaos.layer();
    }
    // What is to answer several is the message alone.
    let shared = ServiceBuilder::new()
        .map_response(Response::new)
        .layer(CoalesceLayer::new(same))
        .map_response(Response::into_inner)
        .service(hello.clone());
    call("coalesce", shared).await;

    let stack = ServiceBuilder::new()
        .layer(FallbackLayer::from_fn(otherwise))
        .layer(TimeoutLayer::new(SECOND))
        .layer(by_tenant.layer_by(tenant))
        .layer(limiter.layer())
        .layer(bulkhead.layer())
        .layer(RetryLayer::new(3).rules(rules()))
        .layer(concurrency.layer().classify(rules()))
        .layer(throttle.layer().classify(rules()))
        .layer(breaker.layer().classify(rules()))
        .layer(HedgeLayer::new(SECOND / 4).copy(rules()).classify(rules()))
        .layer(TimeoutLayer::new(SECOND / 2))
        .layer(chaos.layer())
        .service(hello.clone());
    call("a stack of all", stack).await;

    breaker.force_open();
    call(
        "forced open",
        ServiceBuilder::new()
            .layer(breaker.layer())
            .service(hello.clone()),
    )
    .await;

    println!("the server: 20 calls a second are let in");
    let refused = async {
        loop {
            if let Err(status) = hello.clone().oneshot(request()).await {
                return status;
            }
        }
    };
    let status = refused.await;
    println!("  {:?}: {}", status.code(), status.message());
    Ok(())
}

/// What a build script would make of the messages.
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

/// A server behind limits of its own, and its URL.
async fn start_server() -> Result<String, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let limits = ServiceBuilder::new()
        .layer(Bulkhead::new("server", 100).layer())
        .layer(RateLimiter::new("server", Limit::new(20, SECOND).burst(50)).layer())
        .map_err(status);
    let say_hello = async |request: extract::Request| {
        let reply = service_fn(async |request: Request<Hello>| {
            let text = format!("hello {}", request.get_ref().name);
            Ok(Response::new(Reply { text }))
        });
        tonic::server::Grpc::new(ProstCodec::default())
            .unary(reply, request)
            .await
    };
    let routes = Routes::from(Router::new().route(SAY_HELLO, post(say_hello)));
    let server = Server::builder().layer(limits).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(url)
}

/// The calls of a client as a service: with a generated one, `client.say_hello(request).await`.
fn client<C>(
    channel: C,
) -> impl Service<Request<Hello>, Response = Response<Reply>, Error = Status, Future: Send> + Clone
where
    C: Service<http::Request<Body>, Response = http::Response<Body>, Error: Into<BoxError>>,
    C: Service<http::Request<Body>, Future: Send> + Clone + Send + 'static,
{
    service_fn(move |request| {
        let mut grpc = Grpc::new(channel.clone());
        async move {
            grpc.ready().await.map_err(status)?;
            let path = http::uri::PathAndQuery::from_static(SAY_HELLO);
            grpc.unary(request, path, ProstCodec::default()).await
        }
    })
}

fn replayed(request: http::Request<Body>) -> http::Request<ReplayBody<Body>> {
    request.map(|body| ReplayBody::new(body, 64 * 1024))
}

fn request() -> Request<Hello> {
    let name = "world".to_owned();
    Request::new(Hello { name })
}

async fn call<S>(name: &str, service: S)
where
    S: Service<Request<Hello>, Response = Response<Reply>, Error = Status>,
{
    match service.oneshot(request()).await {
        Ok(reply) => println!("  {name:22} {:?}", reply.get_ref().text),
        Err(status) => println!("  {name:22} {:?}: {}", status.code(), status.message()),
    }
}

const SAY_HELLO: &str = "/hello.Greeter/SayHello";
