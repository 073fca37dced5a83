//! The real etcd of `ETCD_URL`, and the one of `ETCD_AUTH_URL` that denies.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buttress::discovery::Instance;
use buttress::registries::etcd::Etcd;
use serde_json::{Value, json};

use super::{Fault, Line, ask, ours};
use crate::watching::real;

pub struct Row {
    url: String,
    line: Line,
    http: reqwest::Client,
}

impl Row {
    async fn ask(&self, path: &str, body: Value) -> Value {
        let path = format!("{}/v3/{path}", self.url);
        ask(self.http.post(path).json(&body)).await
    }
}

impl super::Row for Row {
    type Registry = Etcd;
    const NAME: &str = "etcd";
    const KEEPS: bool = true;

    async fn start() -> Option<Self> {
        let url = real("ETCD_URL")?;
        let line = Line::to(&url).await;
        let http = reqwest::Client::new();
        Some(Self { url, line, http })
    }

    fn registry(&self) -> Etcd {
        ours(Etcd::new(&self.line.url))
    }

    async fn denied() -> Option<Etcd> {
        Some(ours(Etcd::new(&real("ETCD_AUTH_URL")?)))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.line.fault(fault).await
    }

    // With a lease: what has none can only be taken out on purpose.
    async fn write(&self, service: &str, instance: &Instance) {
        let lease = self.ask("lease/grant", json!({"TTL": "3600"})).await;
        let mut metadata: BTreeMap<_, Value> = (instance.metadata.iter())
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        metadata.insert("weight".into(), json!(instance.weight));
        metadata.extend(
            instance
                .zone
                .clone()
                .map(|zone| ("zone".into(), json!(zone))),
        );
        let value = json!({"Op": 0, "Addr": instance.authority(), "Metadata": metadata});
        let key = STANDARD.encode(format!("{service}/{}", instance.id));
        let value = STANDARD.encode(value.to_string());
        let put = json!({"key": key, "value": value, "lease": lease["ID"]});
        self.ask("kv/put", put).await;
    }

    async fn remove(&self, service: &str, id: &str) {
        let key = STANDARD.encode(format!("{service}/{id}"));
        self.ask("kv/deleterange", json!({"key": key})).await;
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let [key, end] = ['/', '0'].map(|end| STANDARD.encode(format!("{service}{end}")));
        let list = self
            .ask("kv/range", json!({"key": key, "range_end": end}))
            .await;
        let list = list["kvs"].as_array().into_iter().flatten();
        list.map(|pair| {
            let decoded = |name: &str| STANDARD.decode(pair[name].as_str().unwrap()).unwrap();
            let key = String::from_utf8(decoded("key")).unwrap();
            let value: Value = serde_json::from_slice(&decoded("value")).unwrap();
            let weight = value["Metadata"]["weight"].as_u64().unwrap_or(1);
            let (_, id) = key.rsplit_once('/').unwrap();
            (id.to_owned(), weight.try_into().unwrap())
        })
        .collect()
    }
}
