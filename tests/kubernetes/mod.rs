//! The real API server of `KUBERNETES_URL`, used as the controllers of a cluster would.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.

use std::time::Duration;

use buttress::clock;
use buttress::registries::kubernetes::Kubernetes;
use reqwest::{Certificate, ClientBuilder, Method};
use serde_json::{Value, json};

use crate::watching::real;

pub struct Api {
    pub url: String,
    pub token: String,
    pub ca: Vec<u8>,
    pub client: reqwest::Client,
}

impl Api {
    /// The server, unless there is none, with the token that may do everything.
    pub fn real() -> Option<Self> {
        let url = real("KUBERNETES_URL")?;
        let [token, ca] = ["KUBERNETES_TOKEN", "KUBERNETES_CA"].map(real);
        let ca = std::fs::read(ca?).unwrap();
        let trusted = Certificate::from_pem(&ca).unwrap();
        let client = ClientBuilder::new().no_proxy().tls_certs_only([trusted]);
        Some(Self {
            url,
            token: token?,
            ca,
            client: client.build().unwrap(),
        })
    }

    /// The registry that is tested.
    pub fn registry(&self) -> Kubernetes {
        self.at(&self.url).token(self.token.clone() + "\n")
    }

    /// The same without a token, at `url`.
    pub fn at(&self, url: &str) -> Kubernetes {
        Kubernetes::new(url).unwrap().ca(&self.ca).unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, format!("{}/{path}", self.url));
        let answer = request.bearer_auth(&self.token).json(&body).send();
        let answer = answer.await.unwrap();
        let (status, body) = (answer.status(), answer.json().await.unwrap());
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    /// Writes the slice of that name in the default namespace, new or in the place of an older one.
    pub async fn put(&self, name: &str, service: &str, endpoints: Value) {
        let slice = slice(name, service, endpoints);
        self.put_slice("default", slice).await;
    }

    pub async fn put_slice(&self, namespace: &str, slice: Value) {
        let name = slice["metadata"]["name"].as_str().unwrap().to_owned();
        // As a server-side apply, which does not care whether it is there.
        let path = format!("{}/{name}?fieldManager=test&force=true", slices(namespace));
        let request = self.client.patch(format!("{}/{path}", self.url));
        let request = request.header("content-type", "application/apply-patch+yaml");
        let request = request.bearer_auth(&self.token).body(slice.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        assert!(
            status.is_success(),
            "{status}: {}",
            answer.text().await.unwrap()
        );
    }

    pub async fn delete(&self, name: &str) {
        let path = format!("{}/{name}", slices("default"));
        self.ask(Method::DELETE, &path, json!({})).await;
    }

    /// A service account in the default namespace that may do `verbs` with slices, and its token.
    pub async fn account(&self, name: &str, verbs: &[&str]) -> String {
        let accounts = "api/v1/namespaces/default/serviceaccounts";
        let rbac = "apis/rbac.authorization.k8s.io/v1/namespaces/default";
        let metadata = json!({"name": name});
        self.ask(Method::POST, accounts, json!({"metadata": metadata}))
            .await;
        if !verbs.is_empty() {
            let rule = json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs});
            let role = json!({"metadata": metadata, "rules": [rule]});
            self.ask(Method::POST, &format!("{rbac}/roles"), role).await;
            let binding = json!({
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
            });
            self.ask(Method::POST, &format!("{rbac}/rolebindings"), binding)
                .await;
        }
        let path = format!("{accounts}/{name}/token");
        let request = json!({"spec": {"audiences": [], "expirationSeconds": 3600}});
        let answer = self.ask(Method::POST, &path, request).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }
}

pub fn slices(namespace: &str) -> String {
    format!("apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

/// A slice of IPv4 addresses with one port, 80.
pub fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    })
}

/// The pod `name` at 10.0.0.`last`.
pub fn pod(name: &str, last: u8, conditions: Value) -> Value {
    json!({
        "addresses": [format!("10.0.0.{last}")],
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "name": name, "namespace": "default"},
    })
}

pub fn ready(name: &str, last: u8) -> Value {
    pod(
        name,
        last,
        json!({"ready": true, "serving": true, "terminating": false}),
    )
}

/// Lets what is under way grow older by `age`, at once.
pub async fn grow_older(age: Duration) {
    tokio::time::pause();
    clock::sleep(age).await;
    tokio::time::resume();
}
