//! Registries over TLS: whose certificate is trusted, and the client's own.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

mod watching;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use buttress::discovery::ErrorKind;
use buttress::registries::consul::Consul;
use buttress::registries::eureka::Eureka;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use watching::Watching;

/// An authority, and servers that ask for certificates of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self {
            issuer: issuer.unwrap(),
        }
    }

    fn signed(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The port of a server that answers both as Consul and as Eureka.
    async fn serve(&self) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
        let (certificate, key) = self.signed("localhost");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let index =
            HeaderMap::from_iter([("x-consul-index".parse().unwrap(), "7".parse().unwrap())]);
        let nothing = r#"{"applications":{"apps__hashcode":""}}"#;
        let app = Router::new()
            .route("/v1/health/service/orders", get((index, "[]")))
            .route("/eureka/apps", get(nothing));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = RustlsConfig::from_config(Arc::new(config));
        let server = axum_server::from_tcp_rustls(listener, config).unwrap();
        tokio::spawn(server.serve(app.into_make_service()));
        port
    }

    fn trusted(&self) -> ClientBuilder {
        let root = Certificate::from_der(self.issuer.der()).unwrap();
        Client::builder().add_root_certificate(root)
    }

    fn identity(&self) -> Identity {
        let (certificate, key) = self.signed("client");
        Identity::from_pem((certificate.pem() + &key.serialize_pem()).as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn the_servers_certificate_is_checked_and_the_clients_own_is_shown() {
    let authority = Authority::new();
    let port = authority.serve().await;
    let consul = |host: &str| Consul::new(&format!("https://{host}:{port}")).unwrap();
    let eureka = || Eureka::new(&format!("https://localhost:{port}/eureka")).unwrap();
    let whole = || authority.trusted().identity(authority.identity());

    let consul_found = Watching::start(&consul("localhost").client(whole()).unwrap(), "orders");
    let eureka_found = Watching::start(&eureka().client(whole()).unwrap(), "orders");
    for mut found in [consul_found, eureka_found] {
        assert_eq!(found.instances().await, []);
    }
    for (consul, why) in [
        (consul("localhost"), "an unknown authority"),
        (
            consul("127.0.0.1").client(whole()).unwrap(),
            "another's name",
        ),
        (
            consul("localhost").client(authority.trusted()).unwrap(),
            "no certificate of its own",
        ),
    ] {
        let error = Watching::start(&consul, "orders").error().await;
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{why}: {error}");
    }
}
