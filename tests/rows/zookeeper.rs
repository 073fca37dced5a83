//! The real ZooKeeper of `ZOOKEEPER_URL`.

use std::collections::BTreeMap;

use buttress::clock;
use buttress::discovery::{Instance, Status};
use buttress::registries::zookeeper::ZooKeeper;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{Fault, Line, ours};
use crate::watching::{PATIENCE, real, unique};

pub struct Row {
    url: String,
    line: Line,
    /// A session past the library, opened again when it is over.
    session: Mutex<Option<Client>>,
}

impl Row {
    /// What the server says to `ask`, asked again if the session is over or the connection breaks off.
    async fn ask<T>(&self, ask: impl AsyncFn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let mut session = self.session.lock().await;
        let began = clock::now();
        loop {
            let client = match session.take() {
                Some(client) if !client.state().is_terminated() => client,
                _ => Client::connect(&self.url).await.unwrap(),
            };
            let said = ask(&client).await;
            *session = Some(client);
            match said {
                Err(Error::ConnectionLoss | Error::SessionExpired)
                    if clock::now() - began < PATIENCE => {}
                said => return said,
            }
        }
    }
}

impl super::Row for Row {
    type Registry = ZooKeeper;
    const NAME: &str = "zookeeper";
    const KEEPS: bool = true;

    async fn start() -> Option<Self> {
        let url = real("ZOOKEEPER_URL")?;
        let line = Line::to(&format!("{SCHEME}{url}")).await;
        let session = Mutex::default();
        Some(Self { url, line, session })
    }

    fn registry(&self) -> ZooKeeper {
        ours(ZooKeeper::new(self.line.url.trim_start_matches(SCHEME)))
    }

    // Where everything belongs to somebody else.
    async fn denied() -> Option<ZooKeeper> {
        let (url, team) = (real("ZOOKEEPER_URL")?, unique("team"));
        let owner = Client::connector().with_auth("digest", b"owner:r1ght");
        let owner = owner.connect(&url).await.unwrap();
        let theirs = CreateMode::Persistent.with_acls(Acls::creator_all());
        let services = format!("/{team}/services");
        owner.mkdir(&services, &theirs).await.unwrap();
        Some(ours(ZooKeeper::new(&format!("{url}/{team}"))))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.line.fault(fault).await
    }

    async fn write(&self, service: &str, instance: &Instance) {
        let mut payload = instance.metadata.clone();
        payload.insert("weight".into(), instance.weight.to_string());
        payload.extend(instance.zone.clone().map(|zone| ("zone".into(), zone)));
        let data = json!({
            "name": service, "id": instance.id, "address": instance.host, "port": instance.port, "sslPort": null,
            "payload": payload, "registrationTimeUTC": 1_700_000_000_000_u64, "serviceType": "DYNAMIC",
        });
        let data = data.to_string().into_bytes();
        let (folder, path) = (folder(service), path(service, &instance.id));
        let written = self.ask(async |client| {
            match client.set_data(&path, &data, None).await {
                Err(Error::NoNode) => {}
                said => return said.map(drop),
            }
            // Not ephemeral, lest it go with the session that wrote it.
            let stays = CreateMode::Persistent.with_acls(Acls::anyone_all());
            client.mkdir(&folder, &stays).await?;
            client.create(&path, &data, &stays).await.map(drop)
        });
        written.await.unwrap();
    }

    async fn remove(&self, service: &str, id: &str) {
        let path = path(service, id);
        let removed = self.ask(async |client| client.delete(&path, None).await);
        removed.await.unwrap();
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let folder = folder(service);
        let ids = self.ask(async |client| client.list_children(&folder).await);
        let mut list = BTreeMap::new();
        for id in ids.await.unwrap() {
            let path = path(service, &id);
            let read = self.ask(async |client| client.get_data(&path).await);
            let (data, _) = read.await.unwrap();
            let data: Value = serde_json::from_slice(&data).unwrap();
            let weight = data["payload"]["weight"].as_str().unwrap_or("1");
            list.insert(id, weight.parse().unwrap());
        }
        list
    }

    // In the form that every reader takes, a bare instance is enabled or it is not.
    fn seen(status: Status) -> Status {
        match status {
            Status::Up => Status::Up,
            _ => Status::OutOfService,
        }
    }
}

fn folder(service: &str) -> String {
    format!("/services/{service}")
}

fn path(service: &str, id: &str) -> String {
    format!("/services/{service}/{id}")
}

/// ZooKeeper has none, and a line wants one.
const SCHEME: &str = "zookeeper://";
