//! The real Kubernetes API server of `KUBERNETES_URL`, with a slice for each endpoint: those of a slice have the same
//! port.

#[path = "../kubernetes/mod.rs"]
mod api;

use std::collections::BTreeMap;
use std::time::Duration;

use buttress::discovery::Instance;
use buttress::registries::kubernetes::Kubernetes;
use reqwest::Method;
use serde_json::json;

use self::api::{Api, pod, slice, slices};
use super::{Fault, Line};
use crate::watching::unique;

pub struct Row {
    api: Api,
    line: Line,
}

impl super::Row for Row {
    type Registry = Kubernetes;
    const NAME: &str = "kubernetes";
    const LINGERS: Duration = Duration::from_millis(500);
    const REGISTERS: bool = false;
    const KEEPS: bool = true;

    async fn start() -> Option<Self> {
        let api = Api::real()?;
        let line = Line::to(&api.url).await;
        Some(Self { api, line })
    }

    fn registry(&self) -> Kubernetes {
        self.api.at(&self.line.url).token(self.api.token.clone())
    }

    async fn denied() -> Option<Kubernetes> {
        let api = Api::real()?;
        let token = api.account(&unique("nobody"), &[]).await;
        Some(api.at(&api.url).token(token))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.line.fault(fault).await
    }

    async fn write(&self, service: &str, instance: &Instance) {
        let mut endpoint = pod(&instance.id, 1, json!({"ready": true}));
        endpoint["addresses"] = json!([instance.host]);
        endpoint["nodeName"] = json!(instance.metadata["node"]);
        if let Some(zone) = &instance.zone {
            endpoint["zone"] = json!(zone);
        }
        let mut slice = slice(&instance.id, service, json!([endpoint]));
        slice["ports"][0]["port"] = json!(instance.port);
        // The instances that answer are on this machine, and no endpoint may have its address but as a name.
        if instance.host == "127.0.0.1" {
            slice["addressType"] = json!("FQDN");
        }
        self.api.put_slice("default", slice).await;
    }

    async fn remove(&self, _: &str, id: &str) {
        self.api.delete(id).await;
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let slices = slices("default");
        let path = format!("{slices}?labelSelector=kubernetes.io/service-name={service}");
        let list = self.api.ask(Method::GET, &path, json!({})).await;
        let list = list["items"].as_array().unwrap().iter();
        let name =
            |slice: &serde_json::Value| slice["metadata"]["name"].as_str().unwrap().to_owned();
        list.map(|slice| (name(slice), 1)).collect()
    }

    // There are neither weights nor metadata of one's own: of two that differ in them, one is on another node.
    fn told(instance: Instance) -> Instance {
        let node = format!("n{}", instance.weight);
        let mut told = instance.weight(1);
        told.metadata.clear();
        told.metadata("node", node)
    }
}
