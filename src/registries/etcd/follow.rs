use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use super::call::{Cluster, Failure, Why};
use super::stream::Stream;
use super::value;
use super::wire::{self, Event, Kind, Pair, Range, Told};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{BoxFuture, ErrorKind, Instance, RegistryError, Status, Updates};
use crate::rng::ThreadRng;

#[cfg(fuzzing)]
pub(crate) mod fuzz;

/// A service under watch: the keys in its folder, as of a revision.
pub(super) struct Follow {
    cluster: Cluster,
    /// Ends with a slash.
    folder: String,
    updates: Updates,
    revision: i64,
    /// By what follows the folder.
    entries: BTreeMap<String, Entry>,
    /// Those that were taken out on purpose since the last update.
    left: Vec<Instance>,
    told: Option<Vec<Instance>>,
}

struct Entry {
    /// Revision and lease: no two values share them, not even in two stores.
    stamp: (i64, i64),
    /// Nothing if it cannot be called.
    instance: Option<Instance>,
}

/// The watch cannot go on from where it was: the store has forgotten that, or is another one.
struct Outdated;

impl Follow {
    pub(super) fn new(cluster: Cluster, folder: String, updates: Updates) -> Self {
        Self {
            cluster,
            folder,
            updates,
            revision: 0,
            entries: BTreeMap::new(),
            left: Vec::new(),
            told: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, RegistryError> {
        self.read().await?;
        let mut is_read = true;
        loop {
            let watch = wire::watch(&self.folder, self.revision);
            let mut stream = self.cluster.watch(&watch).await.map_err(Failure::error)?;
            let began = clock::now();
            // After a break, all of it, and at once: the store behind the next watch may be a new one.
            let (first, since) = match is_read {
                true => (spread(CHECK), self.revision),
                false => (Duration::ZERO, 0),
            };
            let end = self.listen(&mut stream, first, since).await;
            let is_young = clock::now().saturating_duration_since(began) < LASTING;
            match end {
                Ok(Outdated) if is_read && is_young => {
                    let message = "it forgets sooner than it can be read";
                    return Err(stream.http.error(ErrorKind::Failed, message));
                }
                Ok(Outdated) => {
                    self.read().await?;
                    is_read = true;
                }
                Err(failure) if failure.why != Why::Broken || is_young => {
                    return Err(failure.error());
                }
                Err(_) => {
                    self.cluster.servers.leave(&stream.http);
                    is_read = false;
                }
            }
        }
    }

    /// Reads everything, and tells what is different.
    async fn read(&mut self) -> Result<(), RegistryError> {
        let path = ["v3", "kv", "range"];
        let everything = wire::everything(&self.folder);
        let range = self.cluster.ask(&path, &everything).await;
        let range: Range = range.map_err(Failure::error)?;
        self.revision = range.header.revision;
        self.entries.clear();
        self.left.clear();
        for pair in range.kvs {
            self.put(pair);
        }
        let now = self.instances();
        if self.told.as_ref() == Some(&now) {
            self.updates.confirmed().await;
        }
        self.tell(now).await;
        Ok(())
    }

    /// Follows what `stream` tells, and asks from time to time whether it told everything: a connection that has died
    /// in silence looks like one on which nothing happens. It asks after `first`, for what is newer than `since`.
    async fn listen(
        &mut self,
        stream: &mut Stream,
        first: Duration,
        mut since: i64,
    ) -> Result<Outdated, Failure> {
        let mut check = self.check(first, since);
        let mut misses = 0;
        loop {
            tokio::select! {
                biased;
                told = stream.next() => {
                    let told = told?;
                    if told.compact_revision != 0 {
                        return Ok(Outdated);
                    }
                    if told.canceled {
                        return Err(stream.canceled(&told));
                    }
                    if !told.events.is_empty() {
                        misses = 0;
                    }
                    let is_whole = !told.fragment;
                    self.hear(told);
                    if is_whole && !stream.has_more() {
                        self.publish().await;
                    }
                }
                (known, range) = &mut check => {
                    let wait = match range {
                        Ok(range) if range.header.revision < known => return Ok(Outdated),
                        Ok(range) if self.agrees(&range) => {
                            self.revision = self.revision.max(range.header.revision);
                            since = self.revision;
                            misses = 0;
                            self.updates.confirmed().await;
                            spread(CHECK)
                        }
                        // What it lacks may be on its way.
                        Ok(_) if misses < MISSES => {
                            misses += 1;
                            SOON
                        }
                        Ok(_) => {
                            let message = "the watch does not tell of all that changes";
                            let error = stream.http.error(ErrorKind::TimedOut, message);
                            return Err(Failure::broken(error));
                        }
                        Err(failure) => {
                            self.updates.failed(failure.error()).await;
                            spread(CHECK)
                        }
                    };
                    check = self.check(wait, since);
                }
            }
        }
    }

    /// Asks after `wait` what is there that is newer than `since`.
    fn check(&self, wait: Duration, since: i64) -> Check {
        let (cluster, folder, known) = (self.cluster.clone(), self.folder.clone(), self.revision);
        Box::pin(async move {
            clock::sleep(wait).await;
            let path = ["v3", "kv", "range"];
            let range = cluster.ask(&path, &wire::changes(&folder, since)).await;
            (known, range)
        })
    }

    /// Whether all keys of `range` are known, and no others.
    fn agrees(&self, range: &Range) -> bool {
        let is_known = |pair: &Pair| {
            let entry = self.id(pair).and_then(|id| self.entries.get(&id));
            entry.is_some_and(|entry| entry.stamp == pair.stamp())
        };
        usize::try_from(range.count) == Ok(self.entries.len()) && range.kvs.iter().all(is_known)
    }

    fn hear(&mut self, told: Told) {
        // Without an event it says how far it is.
        if told.events.is_empty() {
            self.revision = self.revision.max(told.header.revision);
        }
        for Event { kind, kv } in told.events {
            self.revision = self.revision.max(kv.mod_revision);
            match kind {
                Kind::Put => self.put(kv),
                Kind::Delete => self.delete(&kv),
            }
        }
    }

    fn put(&mut self, pair: Pair) {
        let Some(id) = self.id(&pair) else { return };
        self.left.retain(|left| left.id != id);
        let stamp = pair.stamp();
        let instance = value::decode(&id, &pair.value);
        self.entries.insert(id, Entry { stamp, instance });
    }

    /// A lease that runs out deletes its keys as somebody who deletes them does. It is on purpose where there is no
    /// lease, and where the instance was taken out of service before.
    fn delete(&mut self, pair: &Pair) {
        let gone = self.id(pair).and_then(|id| self.entries.remove(&id));
        let Some(Entry {
            stamp: (_, lease),
            instance: Some(instance),
        }) = gone
        else {
            return;
        };
        if lease == 0 || instance.status == Status::OutOfService {
            self.left.push(instance.status(Status::OutOfService));
        }
    }

    fn id(&self, pair: &Pair) -> Option<String> {
        let id = pair.key.strip_prefix(self.folder.as_bytes())?;
        Some(String::from_utf8_lossy(id).into_owned())
    }

    fn instances(&self) -> Vec<Instance> {
        let entries = self.entries.values();
        entries.filter_map(|entry| entry.instance.clone()).collect()
    }

    /// Tells what changed. Those that left on purpose are first told to be out of service, lest they be missed.
    async fn publish(&mut self) {
        let now = self.instances();
        if !self.left.is_empty() {
            let mut before = now.clone();
            before.append(&mut self.left);
            before.sort_by(|a, b| a.id.cmp(&b.id));
            self.tell(before).await;
        }
        self.tell(now).await;
    }

    async fn tell(&mut self, instances: Vec<Instance>) {
        if self.told.as_ref() != Some(&instances) {
            self.updates.instances(instances.clone()).await;
            self.told = Some(instances);
        }
    }
}

/// What there is, and the revision that it must have reached.
type Check = BoxFuture<'static, (i64, Result<Range, Failure>)>;

/// `wait`, give or take 10 %, so that many watches do not ask in step.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * ThreadRng.unit())
}

/// How often to ask whether the watch told everything. An answer is confirmed as often, and the guard wants two
/// confirmations that span 30 s.
const CHECK: Duration = Duration::from_secs(15);
/// How long what is missing may be on its way before the next look, and how many looks there are.
const SOON: Duration = Duration::from_secs(2);
const MISSES: u32 = 2;
/// A watch that broke off sooner than this is not begun again without a wait.
const LASTING: Duration = Duration::from_secs(10);
