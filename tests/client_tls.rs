//! The client over TLS: the certificate must be that of the name in the URL, whatever the registry says.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use buttress::error::Reason;
use buttress::registries::memory::Memory;
use buttress::transport::reqwest::Client;
use buttress::{Instance, Registry, Rejected, Resolver};
use reqwest::Certificate;

#[tokio::test]
async fn the_certificate_is_checked_against_the_name_in_the_url() {
    let server = TlsServer::start("orders").await;
    let registry = Memory::new();
    register(&registry, "orders", server.address, true).await;
    // Whoever can write to the registry sends the calls for `payments` to the same server.
    register(&registry, "payments", server.address, true).await;
    let client = server.client(&registry);

    // The scheme of the instance rules over that of the URL, upwards only.
    for url in ["https://orders/", "http://orders/"] {
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "orders", "{url}");
    }
    let error = client.get("https://payments/").send().await.unwrap_err();
    assert!(error.into_inner().expect("an error of TLS").is_connect());
}

#[tokio::test]
async fn a_call_over_https_is_never_made_in_the_clear() {
    let server = TlsServer::start("orders").await;
    let registry = Memory::new();
    register(&registry, "orders", server.address, false).await;
    let answer = server.client(&registry).get("https://orders/").send().await;
    assert_eq!(answer.unwrap().text().await.unwrap(), "orders");
}

#[tokio::test]
async fn a_client_that_was_not_told_of_tls_says_so() {
    let server = TlsServer::start("orders").await;
    let registry = Memory::new();
    register(&registry, "orders", server.address, true).await;
    let client = Client::new(reqwest::Client::new(), Resolver::new(registry));
    let error = client.get("http://orders/").send().await.unwrap_err();
    let rejected = Rejected::find(&error).expect("a refusal");
    assert_eq!(rejected.reason(), Reason::TlsNotSetUp);
}

/// A server whose certificate is for one name.
struct TlsServer {
    address: SocketAddr,
    certificate: Certificate,
}

impl TlsServer {
    async fn start(name: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let signed = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let config = RustlsConfig::from_pem(certificate.clone().into(), key.into());
        let config = config.await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let name = name.to_owned();
        let app = Router::new().route("/", get(|| async { name }));
        let server = axum_server::from_tcp_rustls(listener, config).unwrap();
        tokio::spawn(server.serve(app.into_make_service()));
        Self {
            address,
            certificate: Certificate::from_pem(certificate.as_bytes()).unwrap(),
        }
    }

    fn client(&self, registry: &Memory) -> Client {
        let certificate = self.certificate.clone();
        Client::new(reqwest::Client::new(), Resolver::new(registry.clone()))
            .tls(move || reqwest::Client::builder().add_root_certificate(certificate.clone()))
    }
}

async fn register(registry: &Memory, service: &str, address: SocketAddr, secure: bool) {
    let instance = Instance::new(service, "127.0.0.1", address.port()).secure(secure);
    let ttl = Duration::from_secs(3600);
    registry.register(service, &instance, ttl).await.unwrap();
}
