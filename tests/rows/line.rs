//! The network between a client and its registry.

use std::time::Duration;

use serde_json::json;

use crate::watching::proxy::Proxy;
use crate::watching::{real, unique};

/// What can happen to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All is well.
    None,
    /// Connections break off, and new ones are refused.
    Cut,
    /// Every answer is late by as much.
    Slow(Duration),
    /// A connection ends after so many bytes of answers.
    Partial(u64),
    /// Some bytes of the answers are wrong.
    Garbage,
}

/// A way to a server through the toxiproxy of `TOXIPROXY_URL` and, for what it cannot do, a proxy of ours. Without the
/// former, a way on which nothing happens.
pub struct Line {
    /// The server as it is seen from the client's end.
    pub url: String,
    toxics: Option<Toxics>,
    proxy: Proxy,
}

/// A proxy in toxiproxy.
struct Toxics {
    http: reqwest::Client,
    url: String,
}

impl Line {
    /// A line to the server at `url`, the path of which stays.
    pub async fn to(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let toxics = match real("TOXIPROXY_URL") {
            Some(toxiproxy) => Some(Toxics::before(server, &toxiproxy).await),
            None => None,
        };
        let behind = toxics.as_ref().map_or(server, |(_, listen)| listen);
        let proxy = Proxy::start(&format!("{scheme}://{behind}")).await;
        Self {
            url: format!("{}{path}", proxy.url),
            toxics: toxics.map(|(toxics, _)| toxics),
            proxy,
        }
    }

    /// See [`Row::fault`](super::Row::fault).
    pub async fn fault(&self, fault: Fault) -> bool {
        let Some(toxics) = &self.toxics else {
            return false;
        };
        self.proxy.corrupt(fault == Fault::Garbage);
        toxics.set(fault).await;
        true
    }
}

impl Toxics {
    /// A proxy before `server`, and where it listens.
    async fn before(server: &str, toxiproxy: &str) -> (Self, String) {
        let (http, name) = (reqwest::Client::new(), unique("line"));
        let body = json!({"name": name, "listen": "127.0.0.1:0", "upstream": server});
        let request = http.post(format!("{toxiproxy}/proxies")).json(&body);
        let made = super::ask(request).await;
        let listen = made["listen"].as_str().unwrap().to_owned();
        let url = format!("{toxiproxy}/proxies/{name}");
        (Self { http, url }, listen)
    }

    async fn set(&self, fault: Fault) {
        let toxic = match fault {
            Fault::Slow(late) => {
                Some(json!({"type": "latency", "attributes": {"latency": late.as_millis() as u64}}))
            }
            Fault::Partial(bytes) => {
                Some(json!({"type": "limit_data", "attributes": {"bytes": bytes}}))
            }
            Fault::None | Fault::Cut | Fault::Garbage => None,
        };
        let toxics = format!("{}/toxics", self.url);
        let on = super::ask(self.http.get(&toxics)).await;
        for on in on.as_array().unwrap() {
            let name = on["name"].as_str().unwrap();
            super::ask(self.http.delete(format!("{toxics}/{name}"))).await;
        }
        if let Some(toxic) = toxic {
            super::ask(self.http.post(&toxics).json(&toxic)).await;
        }
        let enabled = json!({"enabled": fault != Fault::Cut});
        super::ask(self.http.post(&self.url).json(&enabled)).await;
    }
}
