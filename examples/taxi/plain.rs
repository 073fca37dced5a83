use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buttress::discovery::Watch;
use reqwest::{Response, Url};
use serde::Serialize;

use crate::calls::PATH;
use crate::stats::Path;

/// What many do: a `reqwest` client with a timeout that goes round the list of the registry.
///
/// It is given the same list as the protected client, at the same moment, even while the registry is down.
pub struct PlainClient {
    client: reqwest::Client,
    services: HashMap<&'static str, Turns>,
}

/// The instances of a service, and whose turn it is.
struct Turns {
    watch: Watch,
    turn: AtomicUsize,
}

impl PlainClient {
    pub fn new(watches: impl IntoIterator<Item = (&'static str, Watch)>) -> Self {
        let turns = |(service, watch)| {
            let turn = AtomicUsize::new(0);
            (service, Turns { watch, turn })
        };
        Self {
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(2))
                .build()
                .expect("the settings are valid"),
            services: watches.into_iter().map(turns).collect(),
        }
    }

    pub async fn get(&self, url: String) -> Result<Response, reqwest::Error> {
        self.client.get(self.aim(&url)).send().await
    }

    pub async fn post(
        &self,
        url: &str,
        key: &str,
        path: Path,
        body: &impl Serialize,
    ) -> Result<Response, reqwest::Error> {
        let request = self.client.post(self.aim(url)).json(body);
        let request = request.header("idempotency-key", key);
        request.header(PATH, path.as_str()).send().await
    }

    /// `url` with the address of the instance whose turn it is.
    fn aim(&self, url: &str) -> Url {
        let mut url = Url::parse(url).expect("a literal of ours");
        let service = url.host_str().unwrap_or_default();
        let Turns { watch, turn } = &self.services[service];
        let snapshot = watch.snapshot();
        let instances = snapshot.instances();
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        if let Some(instance) = instances.get(turn % instances.len().max(1)) {
            url.set_host(Some(&instance.host)).expect("a host name");
            url.set_port(Some(instance.port)).expect("an http URL");
        }
        url
    }
}
