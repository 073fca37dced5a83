use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use tokio::sync::{Mutex, watch};

use super::apps::Apps;
use super::wire::{Applications, Envelope};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{ErrorKind, RegistryError};
use crate::registries::http::{Http, PATIENCE};
use crate::rng::ThreadRng;

/// One poll of the whole registry for all who read it.
///
/// There is no task: of the readers that wait, the one that holds the lock polls, and all get what it got. When it is
/// dropped, the next takes over.
pub(super) struct Poll {
    mirror: Mutex<Mirror>,
    rounds: watch::Sender<Option<Round>>,
}

/// What a poll brought, and when the next is due.
#[derive(Clone)]
struct Round {
    outcome: Result<Arc<Apps>, RegistryError>,
    due: Instant,
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            mirror: Mutex::default(),
            rounds: watch::Sender::new(None),
        }
    }
}

impl Poll {
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut rounds = self.rounds.subscribe();
        if rounds.borrow().as_ref().is_some_and(Round::holds) {
            rounds.mark_changed();
        }
        Reader {
            poll: self.clone(),
            rounds,
        }
    }
}

impl Round {
    fn holds(&self) -> bool {
        self.outcome.is_ok() && clock::now() < self.due
    }
}

/// Gets each round once, beginning with the latest if it still holds.
pub(super) struct Reader {
    poll: Arc<Poll>,
    rounds: watch::Receiver<Option<Round>>,
}

impl Reader {
    /// The registry after the next round, which is `every` after the one before.
    pub(super) async fn next(
        &mut self,
        http: &Http,
        every: Duration,
    ) -> Result<Arc<Apps>, RegistryError> {
        let poll = self.poll.clone();
        loop {
            tokio::select! {
                biased;
                // The sender is in `poll`, so that the wait cannot fail.
                _ = self.rounds.changed() => {}
                mut mirror = poll.mirror.lock() => {
                    // Whoever had the lock before may have finished a round.
                    if !self.rounds.has_changed().unwrap_or(false) {
                        let due = poll.rounds.borrow().as_ref().map(|round| round.due);
                        clock::until(due.unwrap_or_else(clock::now)).await;
                        let outcome = mirror.bring_up_to_date(http).await;
                        let wait = match &outcome {
                            Ok(_) => every.mul_f64(0.9 + 0.2 * ThreadRng.unit()),
                            // Whoever asks again has waited, but not for the others who do.
                            Err(_) => every.min(AFTER_FAILURE),
                        };
                        let due = clock::after(clock::now(), wait);
                        poll.rounds.send_replace(Some(Round { outcome, due }));
                    }
                }
            }
            if let Some(round) = self.rounds.borrow_and_update().as_ref() {
                return round.outcome.clone();
            }
        }
    }
}

/// Our copy of the registry.
#[derive(Default)]
struct Mirror {
    apps: Arc<Apps>,
    read: Option<Read>,
}

#[derive(Clone, Copy)]
struct Read {
    /// When the latest changes were asked for.
    at: Instant,
    /// Until when changes suffice.
    full_by: Instant,
}

impl Mirror {
    async fn bring_up_to_date(&mut self, http: &Http) -> Result<Arc<Apps>, RegistryError> {
        let at = clock::now();
        if let Some(read) = self.read {
            if at < read.full_by && at < clock::after(read.at, REMEMBERED) {
                if let Some(changed) = self.changed(http).await? {
                    self.apps = changed;
                    self.read = Some(Read { at, ..read });
                    return Ok(self.apps.clone());
                }
            }
        }
        let response = http.request(Method::GET, ["apps"], &[]);
        let response = http.send(response, PATIENCE).await?;
        if response.status() == StatusCode::FORBIDDEN {
            let message = "it answered 403 Forbidden: it has just started and knows nothing yet, or forbids to read";
            return Err(http.error(ErrorKind::Failed, message));
        }
        let Envelope { applications } = http.json(response).await?;
        let lasts = FULL.mul_f64(1.0 + ThreadRng.unit());
        let full_by = clock::after(at, lasts);
        self.apps = Arc::new(Apps::new(applications));
        self.read = Some(Read { at, full_by });
        Ok(self.apps.clone())
    }

    /// Our copy with the latest changes, unless that is then not what the server has.
    async fn changed(&self, http: &Http) -> Result<Option<Arc<Apps>>, RegistryError> {
        let request = http.request(Method::GET, ["apps", "delta"], &[]);
        let response = http.send(request, PATIENCE).await?;
        // Changes may be switched off.
        if matches!(
            response.status(),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        ) {
            return Ok(None);
        }
        let Envelope { applications } = http.json(response).await?;
        let Applications { hashcode, .. } = &applications;
        let hashcode = hashcode.clone();
        let mut apps = Apps::clone(&self.apps);
        apps.apply(applications);
        Ok((hashcode == Some(apps.hashcode())).then(|| Arc::new(apps)))
    }
}

/// Between two polls of a server that fails, however many services are watched.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A server tells the changes of the last 3 minutes. Less, since answers are prepared up to 30 s before.
const REMEMBERED: Duration = Duration::from_secs(120);
/// The hash sees only how many have which status: after 10 to 20 minutes, read everything again.
const FULL: Duration = Duration::from_secs(600);
