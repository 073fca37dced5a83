use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::ClientBuilder;

use super::call::{Failure, Why};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::RegistryError;
use crate::registries::http::{Http, PATIENCE, wrong};
use crate::rng::ThreadRng;

/// The members of a cluster. One of them is asked for as long as it answers; one that does not comes last for a while.
#[derive(Clone)]
pub(super) struct Endpoints {
    name: Arc<str>,
    all: Vec<Http>,
    state: Arc<Mutex<State>>,
}

struct State {
    preferred: usize,
    /// Until when each is in quarantine.
    quarantines: Vec<Option<Instant>>,
}

impl Endpoints {
    /// The members at `urls`, separated by commas.
    pub(super) fn new(urls: &str) -> Result<Self, RegistryError> {
        let mut all: Vec<Http> = Vec::new();
        for url in urls.split(',') {
            let mut http = Http::new("etcd", url.trim())?;
            if http.has_user() {
                let message = "its URL has a user or password, which belong into `Etcd::user`";
                return Err(wrong(http.name(), message));
            }
            if let Some(first) = all.first() {
                http.share(first);
            }
            all.push(http);
        }
        let urls: Vec<_> = all.iter().map(|http| &http.name()[WHAT.len()..]).collect();
        let state = State {
            // Not all clients should ask the first of the list.
            preferred: ThreadRng.below(all.len()),
            quarantines: vec![None; all.len()],
        };
        Ok(Self {
            name: format!("{WHAT}{}", urls.join(", ")).into(),
            all,
            state: Arc::new(Mutex::new(state)),
        })
    }

    pub(super) fn client(&mut self, builder: ClientBuilder) -> Result<(), RegistryError> {
        let Some((first, others)) = self.all.split_first_mut() else {
            return Ok(());
        };
        first.client(builder)?;
        for other in others {
            other.share(first);
        }
        Ok(())
    }

    pub(super) fn keep_out(&mut self, secret: &str) {
        for http in &mut self.all {
            http.keep_out(secret.into());
        }
    }

    /// All of them, as it is written where it is one.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Asks one after another until one answers, with how long it may take.
    pub(super) async fn each<T, F>(&self, ask: impl Fn(Http, Duration) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut order = self.order(clock::now()).into_iter().peekable();
        loop {
            // There is at least one, and the last returns.
            let index = order.next().unwrap_or_default();
            let is_last = order.peek().is_none();
            let limit = if is_last { PATIENCE } else { IMPATIENCE };
            let attempt = Attempt::new(self, index);
            let answer = ask(self.all[index].clone(), limit).await;
            let is_broken = matches!(&answer, Err(failure) if failure.why == Why::Broken);
            attempt.ends(is_broken);
            if !is_broken || is_last {
                return answer;
            }
        }
    }

    /// Puts the member `http` into quarantine.
    pub(super) fn leave(&self, http: &Http) {
        let index = self.all.iter().position(|one| one.name() == http.name());
        if let Some(index) = index {
            self.lock().quarantine(index, clock::now());
        }
    }

    /// The members in the order in which to ask them: those in quarantine last.
    fn order(&self, now: Instant) -> Vec<usize> {
        let state = self.lock();
        let count = self.all.len();
        let mut order: Vec<_> = (0..count).map(|n| (state.preferred + n) % count).collect();
        // The sort is stable, so that the preferred stays in front.
        order.sort_by_key(|&index| state.quarantines[index].filter(|&until| until > now));
        order
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn quarantine(&mut self, index: usize, now: Instant) {
        self.quarantines[index] = Some(clock::after(now, QUARANTINE));
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A member that is being asked. Whoever asks may give up before we do: a member that was silent until then counts as
/// one that does not answer.
struct Attempt<'a> {
    endpoints: &'a Endpoints,
    index: usize,
    began: Instant,
    has_ended: bool,
}

impl<'a> Attempt<'a> {
    fn new(endpoints: &'a Endpoints, index: usize) -> Self {
        Self {
            endpoints,
            index,
            began: clock::now(),
            has_ended: false,
        }
    }

    fn ends(mut self, is_broken: bool) {
        self.has_ended = true;
        let mut state = self.endpoints.lock();
        if is_broken {
            state.quarantine(self.index, clock::now());
        } else {
            state.quarantines[self.index] = None;
            state.preferred = self.index;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        if !self.has_ended && now.saturating_duration_since(self.began) >= SILENCE {
            self.endpoints.lock().quarantine(self.index, now);
        }
    }
}

/// How the name of a member begins.
const WHAT: &str = "etcd at ";
/// How long a member may take while another could be asked.
const IMPATIENCE: Duration = Duration::from_secs(3);
/// How long a member must have been silent to be blamed by somebody who did not wait for the end.
const SILENCE: Duration = Duration::from_millis(500);
/// As long as an election and a restart take, and no longer than callers should do without their nearest member.
const QUARANTINE: Duration = Duration::from_secs(30);
