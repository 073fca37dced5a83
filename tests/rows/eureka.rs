//! The real Eureka of `EUREKA_URL`.

use std::collections::BTreeMap;
use std::time::Duration;

use buttress::discovery::{Instance, Status};
use buttress::registries::eureka::Eureka;
use serde_json::{Value, json};

use super::{Fault, Line, ask, ours};
use crate::watching::real;

pub struct Row {
    url: String,
    line: Line,
    http: reqwest::Client,
}

impl super::Row for Row {
    type Registry = Eureka;
    const NAME: &str = "eureka";
    // The server of `scripts/servers` prepares an answer every half second. One that lacks the last change, since it was
    // being prepared when that came, is kept for a second more, and by a server with other settings for three minutes.
    const INTERVAL: Duration = Duration::from_millis(330 + 500 + 500);

    async fn start() -> Option<Self> {
        let url = real("EUREKA_URL")?;
        let line = Line::to(&url).await;
        let http = reqwest::Client::new();
        Some(Self { url, line, http })
    }

    fn registry(&self) -> Eureka {
        ours(Eureka::new(&self.line.url)).poll(Duration::from_millis(300))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.line.fault(fault).await
    }

    async fn write(&self, service: &str, instance: &Instance) {
        let mut metadata = instance.metadata.clone();
        metadata.insert("weight".into(), instance.weight.to_string());
        metadata.extend(instance.zone.clone().map(|zone| ("zone".into(), zone)));
        let app = service.to_uppercase();
        let body = json!({"instance": {
            "instanceId": instance.id, "app": app, "hostName": instance.host, "ipAddr": instance.host,
            "status": "UP", "port": {"$": instance.port, "@enabled": "true"}, "metadata": metadata,
            // As long as no test takes: nobody renews it.
            "leaseInfo": {"durationInSecs": 3600},
            "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        }});
        let path = format!("{}/apps/{app}", self.url);
        ask(self.http.post(path).json(&body)).await;
    }

    async fn remove(&self, service: &str, id: &str) {
        let path = format!("{}/apps/{}/{id}", self.url, service.to_uppercase());
        ask(self.http.delete(path)).await;
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let path = format!("{}/apps/{}", self.url, service.to_uppercase());
        let request = self.http.get(path).header("accept", "application/json");
        let answer = request.send().await.unwrap();
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return BTreeMap::new();
        }
        let list: Value = answer.json().await.unwrap();
        let list = list["application"]["instance"].as_array().unwrap().iter();
        list.map(|one| {
            let weight = one["metadata"]["weight"].as_str().unwrap_or("1");
            let id = one["instanceId"].as_str().unwrap();
            (id.to_owned(), weight.parse().unwrap())
        })
        .collect()
    }

    // Eureka keeps the other word for operators.
    fn seen(status: Status) -> Status {
        match status {
            Status::OutOfService => Status::Down,
            status => status,
        }
    }
}
