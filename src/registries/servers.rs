//! Several servers of one registry, of which one is asked for as long as it answers.

mod ranking;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::ClientBuilder;

use self::ranking::Ranking;
use super::http::{self, ESCAPED, Http, PATIENCE};
#[cfg(any(feature = "etcd", feature = "eureka"))]
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{ErrorKind, RegistryError};
#[cfg(any(feature = "etcd", feature = "eureka"))]
use crate::rng::ThreadRng;

/// The servers of one registry. One of them is asked for as long as it answers; one that does not comes last for a
/// while. A clone shares what is known of them.
#[derive(Clone)]
pub(super) struct Servers {
    what: &'static str,
    name: Arc<str>,
    /// In the order in which they are wanted.
    all: Vec<Http>,
    ranking: Arc<Mutex<Ranking>>,
}

/// In which order to want servers that are written one after another.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// As it is written: the first is the nearest.
    #[cfg(feature = "consul")]
    Written,
    /// By chance: not all clients should ask the first of the list.
    #[cfg(any(feature = "etcd", feature = "eureka"))]
    Any,
}

/// A server whose turn it is to be asked.
pub(super) struct Turn {
    pub(super) http: Http,
    /// How long it may take.
    pub(super) limit: Duration,
    /// Whether nobody is asked after it.
    #[cfg(feature = "eureka")]
    pub(super) is_last: bool,
}

/// Why a server was asked in vain.
pub(super) trait Fault {
    /// Whether another server may do better.
    fn is_broken(&self) -> bool;
}

impl Fault for RegistryError {
    /// Rights, and requests that make no sense, are the same for all of them.
    fn is_broken(&self) -> bool {
        !matches!(self.kind(), ErrorKind::Denied | ErrorKind::Unsupported)
    }
}

impl Servers {
    /// The servers of the registry `what` at `urls`, separated by commas.
    pub(super) fn new(what: &'static str, urls: &str, order: Order) -> Result<Self, RegistryError> {
        let mut servers = Self {
            what,
            name: what.into(),
            all: Vec::new(),
            ranking: Arc::new(Mutex::new(Ranking::new(0))),
        };
        servers.add(urls, order)?;
        Ok(servers)
    }

    /// Adds those at the URLs `written`, separated by commas, to be asked when none of those before answers.
    pub(super) fn add(&mut self, written: &str, order: Order) -> Result<(), RegistryError> {
        let before = self.all.len();
        let urls: Vec<_> = written.split(',').collect();
        for (index, url) in urls.iter().enumerate() {
            let mut http = Http::new(self.what, url.trim()).map_err(|error| {
                // It may end in the middle of a password, which the error would show.
                if !urls[index + 1..].iter().any(|url| url.contains('@')) {
                    return error;
                }
                let message = format!("its URLs are `{}`; {ESCAPED}", http::shown(written));
                http::wrong(self.what, message)
            })?;
            if let Some(first) = self.all.first() {
                http.share(first);
            }
            self.all.push(http);
        }
        let part = self.what.len() + AT.len();
        let urls: Vec<_> = (self.all[before..].iter())
            .map(|http| &http.name()[part..])
            .collect();
        let between = if before == 0 { AT } else { ", " };
        self.name = format!("{}{between}{}", self.name, urls.join(", ")).into();
        match order {
            #[cfg(feature = "consul")]
            Order::Written => {}
            #[cfg(any(feature = "etcd", feature = "eureka"))]
            Order::Any => shuffle(&mut self.all[before..]),
        }
        self.ranking = Arc::new(Mutex::new(Ranking::new(self.all.len())));
        Ok(())
    }

    /// The same, of which others need not think as of these: what cannot be had here says nothing about them.
    #[cfg(feature = "consul")]
    pub(super) fn apart(mut self) -> Self {
        self.ranking = Arc::new(Mutex::new(Ranking::new(self.all.len())));
        self
    }

    /// Replaces the client, which they share.
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

    /// Lets no error repeat `secret`.
    #[cfg(feature = "etcd")]
    pub(super) fn keep_out(&mut self, secret: &str) {
        for http in &mut self.all {
            http.keep_out(secret.into());
        }
    }

    /// What it is and where all of them are, without secrets.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// An error of none of them. `message` must hold no secret.
    #[cfg(feature = "consul")]
    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> RegistryError {
        RegistryError::new(self.name.clone(), kind, message)
    }

    /// Each of them, as they were added or by chance.
    #[cfg(any(feature = "consul", feature = "etcd"))]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Http> {
        self.all.iter()
    }

    /// Asks one after another until one answers.
    #[cfg(any(feature = "etcd", feature = "eureka"))]
    pub(super) async fn each<T, E, F>(&self, ask: impl Fn(Turn) -> F) -> Result<T, E>
    where
        E: Fault,
        F: Future<Output = Result<T, E>>,
    {
        self.each_after(Duration::ZERO, ask).await
    }

    /// Asks one after another until one answers, each of which may be silent for as long as `wait` for want of news.
    pub(super) async fn each_after<T, E, F>(
        &self,
        wait: Duration,
        ask: impl Fn(Turn) -> F,
    ) -> Result<T, E>
    where
        E: Fault,
        F: Future<Output = Result<T, E>>,
    {
        let mut order = self.lock().order(clock::now()).into_iter().peekable();
        loop {
            // There is at least one, and the last returns.
            let index = order.next().unwrap_or_default();
            let is_last = order.peek().is_none();
            let attempt = Attempt::new(self, index, wait + SILENCE);
            let answer = ask(self.turn(index, is_last)).await;
            let is_broken = answer.as_ref().is_err_and(Fault::is_broken);
            attempt.ends(is_broken);
            if !is_broken || is_last {
                return answer;
            }
        }
    }

    /// All of them in the order in which to ask them, for somebody who needs more than one answer.
    #[cfg(feature = "consul")]
    pub(super) fn turns(&self) -> impl Iterator<Item = Turn> {
        let order = self.lock().order(clock::now()).into_iter();
        order.map(|index| self.turn(index, self.all.len() == 1))
    }

    /// Puts the server `http` into quarantine.
    #[cfg(feature = "etcd")]
    pub(super) fn leave(&self, http: &Http) {
        let index = self.all.iter().position(|one| one.name() == http.name());
        if let Some(index) = index {
            self.lock().quarantine(index, clock::now());
        }
    }

    fn turn(&self, index: usize, is_last: bool) -> Turn {
        Turn {
            http: self.all[index].clone(),
            limit: if is_last { PATIENCE } else { IMPATIENCE },
            #[cfg(feature = "eureka")]
            is_last,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ranking> {
        self.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A server that is being asked. Whoever asks may give up before we do: a server that was silent until then counts as
/// one that does not answer.
struct Attempt<'a> {
    servers: &'a Servers,
    index: usize,
    late: Instant,
    has_ended: bool,
}

impl<'a> Attempt<'a> {
    fn new(servers: &'a Servers, index: usize, patience: Duration) -> Self {
        Self {
            servers,
            index,
            late: clock::after(clock::now(), patience),
            has_ended: false,
        }
    }

    fn ends(mut self, is_broken: bool) {
        self.has_ended = true;
        let mut ranking = self.servers.lock();
        if is_broken {
            ranking.quarantine(self.index, clock::now());
        } else {
            ranking.answered(self.index, clock::now());
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        if !self.has_ended && now >= self.late {
            self.servers.lock().quarantine(self.index, now);
        }
    }
}

/// The shuffle of Fisher and Yates.
#[cfg(any(feature = "etcd", feature = "eureka"))]
fn shuffle<T>(items: &mut [T]) {
    for left in (2..=items.len()).rev() {
        items.swap(left - 1, ThreadRng.below(left));
    }
}

/// Between what a registry is and where.
const AT: &str = " at ";
/// How long a server may take while another could be asked.
const IMPATIENCE: Duration = Duration::from_secs(3);
/// How long a server must have been silent to be blamed by somebody who did not wait for the end.
const SILENCE: Duration = Duration::from_millis(500);

#[cfg(all(test, feature = "consul", feature = "eureka"))]
#[allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.
mod tests {
    use super::*;

    fn three() -> Servers {
        Servers::new("r", "http://a,http://b,http://c", Order::Written).unwrap()
    }

    /// Asks, where those in `broken` fail, and says who was asked.
    async fn asked(servers: &Servers, broken: &str) -> String {
        let asked = &Mutex::new(String::new());
        let ask = |turn: Turn| async move {
            let name = turn
                .http
                .name()
                .trim_start_matches("r at http://")
                .to_owned();
            asked.lock().unwrap().push_str(&name);
            match broken.contains(&name) {
                true => Err(turn.http.error(ErrorKind::Failed, "")),
                false => Ok(()),
            }
        };
        let _ = servers.each(ask).await;
        asked.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_a_zone_come_in_any_order_and_before_those_of_the_next() {
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut servers = Servers::new("r", "http://a,http://b", Order::Any).unwrap();
            servers.add("http://c,http://d", Order::Any).unwrap();
            assert_eq!(
                servers.name(),
                "r at http://a, http://b, http://c, http://d"
            );
            let order = asked(&servers, "abcd").await;
            assert!(
                order[..2].contains('a') && order[..2].contains('b'),
                "{order}"
            );
            first.insert(order);
        }
        assert_eq!(first.len(), 4, "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_silent_until_its_caller_gave_up_goes_into_quarantine() {
        let servers = three();
        let hang = servers.each(|_| std::future::pending::<Result<(), RegistryError>>());
        let limit = tokio::time::timeout(SILENCE * 2, hang);
        assert!(limit.await.is_err());
        assert_eq!(asked(&servers, "").await, "b");

        // Silence is no fault in one that was asked to wait.
        let servers = three();
        let wait = SILENCE * 10;
        let hang = |_| std::future::pending::<Result<(), RegistryError>>();
        let limit = tokio::time::timeout(wait, servers.each_after(wait, hang));
        assert!(limit.await.is_err());
        assert_eq!(asked(&servers, "").await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_apart_is_no_fault_here() {
        let servers = three();
        assert_eq!(asked(&servers.clone(), "ab").await, "abc");
        assert_eq!(asked(&servers, "").await, "c", "clones know the same");
        let servers = three();
        assert_eq!(asked(&servers.clone().apart(), "ab").await, "abc");
        assert_eq!(asked(&servers, "").await, "a");
    }
}
