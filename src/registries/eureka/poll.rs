use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use tokio::sync::{Mutex, watch};

use super::apps::Apps;
use super::request;
use super::wire::{Applications, Envelope};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{ErrorKind, RegistryError};
use crate::registries::http::PATIENCE;
use crate::registries::servers::{Servers, Turn};
use crate::rng::ThreadRng;

/// One poll of the whole registry for all who read it.
///
/// There is no task: of the readers that wait, the one that holds the lock polls, and all get what it got. When it is
/// dropped, the next takes over.
pub(super) struct Poll {
    mirror: Mutex<Mirror>,
    rounds: watch::Sender<Option<Round>>,
}

/// Who is polled, for what, and how often.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) servers: Servers,
    /// Other regions than the servers' own, separated by commas.
    pub(super) regions: String,
    pub(super) every: Duration,
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
    pub(super) async fn next(&mut self, asked: &Asked) -> Result<Arc<Apps>, RegistryError> {
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
                        let outcome = mirror.bring_up_to_date(asked).await;
                        let wait = match &outcome {
                            Ok(_) => asked.every.mul_f64(0.9 + 0.2 * ThreadRng.unit()),
                            // Whoever asks again has waited, but not for the others who do.
                            Err(_) => asked.every.min(AFTER_FAILURE),
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

#[derive(Clone)]
struct Read {
    server: Arc<str>,
    /// When the latest changes were asked for.
    at: Instant,
    /// Until when changes suffice.
    full_by: Instant,
}

impl Mirror {
    async fn bring_up_to_date(&mut self, asked: &Asked) -> Result<Arc<Apps>, RegistryError> {
        let mirror = &*self;
        let doubted = &std::sync::Mutex::new(None);
        let read = |turn| async move { mirror.read(turn, &asked.regions, doubted).await };
        let answer = asked.servers.each(read).await;
        // Where nobody knows better, what was doubted is what there is.
        let doubted = doubted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (apps, read) = fuller(doubted, answer)?;
        self.apps = apps;
        self.read = Some(read);
        Ok(self.apps.clone())
    }

    /// What one server has. A peer may have seen other changes, hence its changes alone do not do.
    async fn read(
        &self,
        turn: Turn,
        regions: &str,
        doubted: &std::sync::Mutex<Option<Copied>>,
    ) -> Result<Copied, RegistryError> {
        let Turn { http, is_last, .. } = &turn;
        let at = clock::now();
        if let Some(read) = &self.read {
            let is_recent = at < read.full_by && at < clock::after(read.at, REMEMBERED);
            if is_recent && read.server == *http.name() {
                if let Some(changed) = self.changed(&turn, regions).await? {
                    let read = Read { at, ..read.clone() };
                    return Ok((changed, read));
                }
            }
        }
        let request = request(http, Method::GET, &["apps"], &within(regions));
        let response = http.send(request, PATIENCE).await?;
        if response.status() == StatusCode::FORBIDDEN {
            let message = "it answered 403 Forbidden: it has just started and knows nothing yet, or forbids to read";
            return Err(http.error(ErrorKind::Failed, message));
        }
        let Envelope { applications } = http.json(response).await?;
        let apps = Arc::new(Apps::new(applications));
        let lasts = FULL.mul_f64(1.0 + ThreadRng.unit());
        let read = Read {
            server: http.name().clone(),
            at,
            full_by: clock::after(at, lasts),
        };
        let (now, before) = (apps.count(), self.apps.count());
        if !is_last && now * 100 < before * PRESERVED {
            let message =
                format!("it names {now} of {before} instances, as one that has just started");
            let mut doubted = doubted.lock().unwrap_or_else(PoisonError::into_inner);
            *doubted = fuller(doubted.take(), Ok((apps, read))).ok();
            return Err(http.error(ErrorKind::Failed, message));
        }
        Ok((apps, read))
    }

    /// Our copy with the latest changes, unless that is then not what the server has.
    async fn changed(
        &self,
        turn: &Turn,
        regions: &str,
    ) -> Result<Option<Arc<Apps>>, RegistryError> {
        let Turn { http, limit, .. } = turn;
        let request = request(http, Method::GET, &["apps", "delta"], &within(regions));
        let response = http.send(request, *limit).await?;
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

/// What was read, and how.
type Copied = (Arc<Apps>, Read);

/// Of two answers, the one that names more.
fn fuller(
    doubted: Option<Copied>,
    answer: Result<Copied, RegistryError>,
) -> Result<Copied, RegistryError> {
    match (doubted, answer) {
        (Some(doubted), Ok(answer)) if answer.0.count() < doubted.0.count() => Ok(doubted),
        (Some(doubted), Err(_)) => Ok(doubted),
        (_, answer) => answer,
    }
}

fn within(regions: &str) -> Vec<(&str, &str)> {
    let regions = Some(regions).filter(|regions| !regions.is_empty());
    regions
        .map(|regions| ("regions", regions))
        .into_iter()
        .collect()
}

/// Between two polls of a server that fails, however many services are watched.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A server tells the changes of the last 3 minutes. Less, since answers are prepared up to 30 s before.
const REMEMBERED: Duration = Duration::from_secs(120);
/// The hash sees only how many have which status, and a server may keep an answer that lacks the last change, until it has
/// forgotten that there was one: after 10 to 20 minutes, read everything again.
const FULL: Duration = Duration::from_secs(600);
/// How many of a hundred instances a server must still name, before another is asked for its opinion: as many
/// as must have sent heartbeats, or a server preserves itself.
const PRESERVED: usize = 85;
