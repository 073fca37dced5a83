use std::convert::Infallible;
use std::time::Duration;

use reqwest::Method;

use super::Consul;
use super::health::{self, Entry};
use super::pace::Pace;
use super::query::header;
use crate::clock;
use crate::discovery::{ErrorKind, Instance, RegistryError, Updates};
use crate::registries::http::PATIENCE;
use crate::registries::servers::Turn;

/// What an agent answered.
struct Answer {
    index: u64,
    /// Why it may be behind the times, if it may be.
    doubt: Option<RegistryError>,
    instances: Vec<Instance>,
}

impl Consul {
    pub(super) async fn follow(
        &self,
        service: &str,
        updates: &Updates,
    ) -> Result<Infallible, RegistryError> {
        let mut index = 0;
        let mut known: Option<Vec<Instance>> = None;
        let mut pace = Pace::default();
        loop {
            clock::until(pace.next(clock::now())).await;
            let answer = self.health(service, index).await?;
            let is_news = known.as_ref() != Some(&answer.instances);
            if let Some(doubt) = answer.doubt {
                let is_loss = loses(known.as_deref(), &answer.instances);
                if is_loss && known.is_none() {
                    return Err(doubt);
                }
                if is_news && !is_loss {
                    updates.instances(answer.instances.clone()).await;
                    known = Some(answer.instances);
                }
                // Another watch would not know who was there. The leader to come need not move the index.
                updates.failed(doubt).await;
                pace.unchanged();
                index = 0;
                continue;
            }
            index = health::next_index(index, answer.index);
            if is_news {
                pace.changed();
                updates.instances(answer.instances.clone()).await;
                known = Some(answer.instances);
            } else {
                pace.unchanged();
                updates.confirmed().await;
            }
        }
    }

    /// Asks who is there: at once if `index` is 0, else as soon as the state has moved beyond it, or after a while.
    async fn health(&self, service: &str, index: u64) -> Result<Answer, RegistryError> {
        // With another agent to ask, one that hangs is found out sooner.
        let is_alone = self.agents.servers.iter().len() == 1;
        let wait = if is_alone { WAIT } else { SHORT_WAIT };
        let mut query = self.query.read();
        if index > 0 {
            query.push(("index", index.to_string()));
            query.push(("wait", format!("{}s", wait.as_secs())));
        }
        let query: &Vec<_> = &query.iter().map(|(key, value)| (*key, &**value)).collect();
        // The server adds up to a sixteenth of the wait, so that not all return at once.
        let wait = if index > 0 {
            wait + wait / 16
        } else {
            Duration::ZERO
        };
        let ask = |turn: Turn| async move {
            let limit = if index > 0 {
                wait + PATIENCE
            } else {
                turn.limit
            };
            self.ask(turn, service, query, limit).await
        };
        self.agents.each_after(wait, ask).await
    }

    async fn ask(
        &self,
        Turn { http, .. }: Turn,
        service: &str,
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Answer, RegistryError> {
        let path = ["v1", "health", "service", service];
        let request = http.request(Method::GET, path, query);
        let response = http.send(request, limit).await?;
        if !response.status().is_success() {
            return Err(http.refused(response).await);
        }
        let headers = response.headers();
        let Some(index) = header(headers, "x-consul-index").and_then(|text| text.parse().ok())
        else {
            let message =
                "its answer has no X-Consul-Index, without which there is nothing to wait for";
            return Err(http.error(ErrorKind::Malformed, message));
        };
        let doubt = self.query.doubt(headers);
        let filtered = header(headers, "x-consul-results-filtered-by-acls") == Some("true");
        let closed = header(headers, "x-consul-default-acl-policy") == Some("deny");
        let entries: Vec<Entry> = http.json(response).await?;

        // Without the right to read, Consul answers with an empty list.
        if entries.is_empty() && filtered {
            let message = format!("the token may not read the service `{service}` or its nodes");
            return Err(http.error(ErrorKind::Denied, message));
        }
        if entries.is_empty() && closed && !http.has_token() {
            let message = format!(
                "no instance of `{service}` may be seen, or there is none: \
                it denies by default, and no token was given"
            );
            return Err(http.error(ErrorKind::Denied, message));
        }
        Ok(Answer {
            index,
            doubt: doubt.map(|why| {
                let message =
                    format!("{why}: it may add instances, and neither loses nor confirms any");
                http.error(ErrorKind::Failed, message)
            }),
            instances: health::instances(entries, self.query.address.as_deref()),
        })
    }
}

/// Whether `answer` lacks what is known; before anything is, it must name someone.
fn loses(known: Option<&[Instance]>, answer: &[Instance]) -> bool {
    match known {
        None => answer.is_empty(),
        Some(known) => {
            let named = |id: &str| answer.iter().any(|instance| instance.id == id);
            !known.iter().all(|instance| named(&instance.id))
        }
    }
}

/// How long a blocking query waits for a change: Consul's own default, half of what it allows.
const WAIT: Duration = Duration::from_secs(300);
const SHORT_WAIT: Duration = Duration::from_secs(60);
