use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::access::{Access, Refusal, trouble};
use super::port::Wanted;
use super::slices::{NoPort, Slices};
use super::wire::{Event, List, number};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{ErrorKind, Instance, RegistryError, Updates};
use crate::registries::lines::LineStream;
use crate::rng::ThreadRng;

/// A service under watch: its slices, as of a version.
pub(super) struct Follow {
    access: Access,
    namespace: String,
    selector: String,
    port: Wanted,
    updates: Updates,
    version: String,
    slices: Slices,
    told: Option<Vec<Instance>>,
    /// Those that no slice has any more, by id, until they are told to be gone.
    leaving: BTreeMap<String, Instant>,
    /// Why nothing can be told at the moment.
    no_port: Option<NoPort>,
}

/// How a watch ended that had begun.
enum End {
    /// The server ended it in good order, as it does after the time that was asked for.
    Complete,
    /// It broke off, or nothing was heard any more.
    Broken(RegistryError),
    /// It cannot go on from where it was: the server has forgotten that, or is another one.
    Outdated(RegistryError),
}

impl Follow {
    pub(super) fn new(
        access: Access,
        namespace: String,
        service: String,
        port: Wanted,
        updates: Updates,
    ) -> Self {
        Self {
            access,
            namespace,
            selector: format!("{LABEL}={service}"),
            port,
            updates,
            version: String::new(),
            slices: Slices::default(),
            told: None,
            leaving: BTreeMap::new(),
            no_port: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, RegistryError> {
        self.read().await?;
        let mut is_read = true;
        loop {
            let began = clock::now();
            let end = self.watch().await?;
            let is_young = clock::now().saturating_duration_since(began) < LASTING;
            is_read = match end {
                End::Complete if !is_young => false,
                End::Outdated(_) if !is_young || !is_read => {
                    self.read().await?;
                    true
                }
                End::Broken(_) if !is_young => {
                    // All watches of a server break off with it.
                    clock::sleep(SPREAD.mul_f64(ThreadRng.unit())).await;
                    self.read().await?;
                    true
                }
                End::Complete => {
                    let message = "it ends the watch at once";
                    return Err(self.access.http.error(ErrorKind::Failed, message));
                }
                End::Outdated(error) | End::Broken(error) => return Err(error),
            };
        }
    }

    /// Reads all slices, and tells what is different.
    async fn read(&mut self) -> Result<(), RegistryError> {
        let read = match self.pages().await {
            // It took so long that the server has forgotten where it began.
            Err(Refusal::Gone(_)) => self.pages().await,
            read => read,
        };
        (self.version, self.slices) = read.map_err(Refusal::error)?;
        self.leaving.clear();
        self.publish(Duration::ZERO).await;
        Ok(())
    }

    async fn pages(&self) -> Result<(String, Slices), Refusal> {
        let mut slices = Slices::default();
        let mut next: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = vec![("labelSelector", &*self.selector), ("limit", PAGE)];
            query.extend(next.as_deref().map(|next| ("continue", next)));
            let List { metadata, items } = self.access.list(&self.namespace, &query).await?;
            for slice in items.unwrap_or_default() {
                slices.put(slice);
            }
            next = metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok((metadata.version, slices));
            }
        }
        let message = format!("its list has more than {MOST_PAGES} pages");
        Err(self.access.http.error(ErrorKind::Malformed, message).into())
    }

    /// Watches what happens from the known version on, until the watch ends.
    async fn watch(&mut self) -> Result<End, RegistryError> {
        let seconds = LONGEST.mul_f64(1.0 - ThreadRng.unit() / 2.0).as_secs();
        let query = [
            ("labelSelector", &*self.selector),
            ("watch", "true"),
            ("resourceVersion", &*self.version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &*seconds.to_string()),
        ];
        let mut stream = match self.access.watch(&self.namespace, &query).await {
            Ok(stream) => stream,
            Err(Refusal::Gone(error)) => return Ok(End::Outdated(error)),
            Err(Refusal::Error(error)) => return Err(error),
        };
        let mut silent_at = clock::after(clock::now(), SILENCE);
        loop {
            let settled = self
                .leaving
                .values()
                .min()
                .map(|&since| clock::after(since, SETTLE));
            tokio::select! {
                biased;
                () = clock::until(settled.unwrap_or(silent_at)), if settled.is_some() => {
                    self.publish(SETTLE).await;
                }
                line = stream.next() => {
                    silent_at = clock::after(clock::now(), SILENCE);
                    let line = match line {
                        Ok(Some(line)) => line,
                        Ok(None) => return Ok(End::Complete),
                        Err(error) if error.kind() == ErrorKind::Malformed => return Err(error),
                        Err(error) => return Ok(End::Broken(error)),
                    };
                    let event = stream.http.parse(&line)?;
                    if let Some(end) = self.hear(event, &stream).await? {
                        return Ok(end);
                    }
                    if !stream.has_more() {
                        self.publish(SETTLE).await;
                    }
                }
                () = clock::until(silent_at) => {
                    let message = "the watch has fallen silent";
                    return Ok(End::Broken(stream.http.error(ErrorKind::TimedOut, message)));
                }
            }
        }
    }

    async fn hear(
        &mut self,
        event: Event,
        stream: &LineStream,
    ) -> Result<Option<End>, RegistryError> {
        match event {
            Event::Added(slice) | Event::Modified(slice) => {
                self.version.clone_from(&slice.metadata.version);
                self.slices.put(slice);
            }
            Event::Deleted(slice) => {
                self.version.clone_from(&slice.metadata.version);
                self.slices.remove(&slice);
            }
            Event::Bookmark(bookmark) => {
                let version = bookmark.metadata.version;
                if number(&version) < number(&self.version) {
                    let message = "its store is another one";
                    let error = stream.http.error(ErrorKind::Failed, message);
                    return Ok(Some(End::Outdated(error)));
                }
                self.version = version;
                // What was heard before it comes first.
                self.publish(SETTLE).await;
                if self.no_port.is_none() {
                    self.updates.confirmed().await;
                }
            }
            Event::Error(said) => {
                return match trouble(&stream.http, &said, &self.namespace) {
                    Refusal::Gone(error) => Ok(Some(End::Outdated(error))),
                    Refusal::Error(error) => Err(error),
                };
            }
        }
        Ok(None)
    }

    /// Tells what changed. Those that no slice has any more are told to be gone after `settle`: an endpoint that is
    /// moved from slice to slice may be in neither for a moment.
    async fn publish(&mut self, settle: Duration) {
        let mut now = match self.slices.instances(&self.port) {
            Ok(now) => now,
            Err(no_port) => {
                if self.no_port.as_ref() != Some(&no_port) {
                    let NoPort(others) = &no_port;
                    let message = format!(
                        "the service has no {}, but {others}: say which with `port`",
                        self.port
                    );
                    let error = self.access.http.error(ErrorKind::Unsupported, message);
                    self.updates.failed(error).await;
                }
                self.leaving.clear();
                self.no_port = Some(no_port);
                return;
            }
        };
        self.keep_leaving(&mut now, settle);
        let is_news = self.told.as_ref() != Some(&now);
        if self.no_port.take().is_some() || is_news {
            self.updates.instances(now.clone()).await;
            self.told = Some(now);
        } else if settle.is_zero() {
            self.updates.confirmed().await;
        }
    }

    /// Adds to `instances` those that have been missing for less than `settle`, as they were.
    fn keep_leaving(&mut self, instances: &mut Vec<Instance>, settle: Duration) {
        let at = clock::now();
        let mut leaving = BTreeMap::new();
        for known in self.told.iter().flatten() {
            if instances
                .binary_search_by(|instance| instance.id.cmp(&known.id))
                .is_ok()
            {
                continue;
            }
            let since = self.leaving.get(&known.id).copied().unwrap_or(at);
            if at < clock::after(since, settle) {
                leaving.insert(known.id.clone(), since);
            }
        }
        let kept = self
            .told
            .iter()
            .flatten()
            .filter(|known| leaving.contains_key(&known.id));
        instances.extend(kept.cloned());
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        self.leaving = leaving;
    }
}

/// By which the slices of a service are known.
const LABEL: &str = "kubernetes.io/service-name";
/// How many slices to read at once: a slice has 100 endpoints unless the cluster is told otherwise.
const PAGE: &str = "100";
const MOST_PAGES: usize = 1000;
/// How long a watch may last, of which up to a half is left out by chance: twice the five minutes of Kubernetes' own
/// clients.
const LONGEST: Duration = Duration::from_secs(600);
/// How long a watch may say nothing: a server says once a minute how far it is.
const SILENCE: Duration = Duration::from_secs(90);
/// How long an endpoint may be in no slice before it is gone.
const SETTLE: Duration = Duration::from_millis(500);
/// A watch that ended sooner than this is not begun again without a wait.
const LASTING: Duration = Duration::from_secs(10);
/// How long to wait at most before reading again after a break.
const SPREAD: Duration = Duration::from_secs(1);
