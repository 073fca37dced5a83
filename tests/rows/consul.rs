//! The real Consul of `CONSUL_URL`, and the one of `CONSUL_ACL_URL` that denies.

use std::collections::BTreeMap;

use buttress::discovery::Instance;
use buttress::registries::consul::Consul;
use serde_json::json;

use super::{Fault, Lapsed, Line, ask, ours};
use crate::watching::real;

pub struct Row {
    url: String,
    line: Line,
    http: reqwest::Client,
}

impl super::Row for Row {
    type Registry = Consul;
    const NAME: &str = "consul";
    // Consul takes out what is critical after a minute at least.
    const LAPSED: Lapsed = Lapsed::Down;

    async fn start() -> Option<Self> {
        let url = real("CONSUL_URL")?;
        let line = Line::to(&url).await;
        let http = reqwest::Client::new();
        Some(Self { url, line, http })
    }

    fn registry(&self) -> Consul {
        ours(Consul::new(&self.line.url))
    }

    async fn denied() -> Option<Consul> {
        Some(ours(Consul::new(&real("CONSUL_ACL_URL")?)))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.line.fault(fault).await
    }

    async fn write(&self, service: &str, instance: &Instance) {
        let mut meta = instance.metadata.clone();
        meta.extend(instance.zone.clone().map(|zone| ("zone".into(), zone)));
        let body = json!({
            "ID": instance.id, "Name": service, "Address": instance.host, "Port": instance.port, "Meta": meta,
            "Weights": {"Passing": instance.weight, "Warning": 1},
        });
        let path = format!("{}/v1/agent/service/register", self.url);
        ask(self.http.put(path).json(&body)).await;
    }

    async fn remove(&self, _: &str, id: &str) {
        let path = format!("{}/v1/agent/service/deregister/{id}", self.url);
        ask(self.http.put(path)).await;
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let path = format!("{}/v1/catalog/service/{service}?consistent", self.url);
        let list = ask(self.http.get(path)).await;
        let list = list.as_array().unwrap().iter();
        list.map(|one| {
            let weight = one["ServiceWeights"]["Passing"].as_u64().unwrap();
            let id = one["ServiceID"].as_str().unwrap();
            (id.to_owned(), weight.try_into().unwrap())
        })
        .collect()
    }
}
