//! Following one service: who is below its node, and what each of them says.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt, iter};
use zookeeper_client::{Client, Error, OneshotWatcher, SessionState, StateWatcher};

use super::ensemble::{Ensemble, at, spellings};
use super::node;
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{BoxFuture, Instance, RegistryError, Updates};
use crate::rng::ThreadRng;

/// A copy of what is below the node of a service, and the watches that tell what of it is out of date.
pub(super) struct Follow {
    ensemble: Ensemble,
    session: Arc<Client>,
    state: StateWatcher,
    root: String,
    service: String,
    updates: Updates,
    /// What the service's name may be written like below `root`. As a rule there is one.
    folders: BTreeMap<String, Folder>,
    /// The last change of who is below `root`, or nothing where that does not exist.
    changed: Option<i64>,
    /// What has to be read.
    stale: BTreeSet<Place>,
    fired: FuturesUnordered<BoxFuture<'static, Place>>,
    told: Option<Vec<Instance>>,
}

/// What is known of the children of a folder.
#[derive(Default)]
struct Folder {
    changed: i64,
    /// By id. One that makes no sense is nothing.
    instances: BTreeMap<String, Option<Instance>>,
}

/// Something that is read and watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Root,
    Folder(String),
    Node { folder: String, id: String },
}

/// What a node gave.
enum Read {
    Data(Vec<u8>, OneshotWatcher),
    Gone,
    Denied,
}

impl Follow {
    pub(super) fn new(
        ensemble: Ensemble,
        session: Arc<Client>,
        root: String,
        service: String,
        updates: Updates,
    ) -> Self {
        Self {
            ensemble,
            state: session.state_watcher(),
            session,
            root,
            service,
            updates,
            folders: BTreeMap::new(),
            changed: None,
            stale: BTreeSet::from([Place::Root]),
            fired: FuturesUnordered::new(),
            told: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, RegistryError> {
        self.ensemble.check_name(&self.service)?;
        // The server that answers may lag behind the one that another session was told by.
        let synced = self
            .ensemble
            .ask(&self.session, self.session.sync(at(&self.root)));
        synced.await?.map_err(|error| self.ensemble.error(error))?;
        loop {
            let began = clock::now();
            if let Err(error) = self.read().await {
                self.reconnect(error).await?;
                continue;
            }
            self.tell().await;
            let check = CHECK.mul_f64(0.9 + 0.2 * ThreadRng.unit());
            tokio::select! {
                biased;
                state = self.state.changed() => if state != SessionState::SyncConnected {
                    let error = self.ensemble.error(Error::ConnectionLoss);
                    self.reconnect(error).await?;
                },
                Some(place) = self.fired.next() => {
                    // Many that change at once are read at once.
                    clock::until(clock::after(began, LEAST)).await;
                    self.stale.insert(place);
                    while let Some(Some(place)) = self.fired.next().now_or_never() {
                        self.stale.insert(place);
                    }
                }
                () = clock::sleep(check) => if let Err(error) = self.check().await {
                    self.reconnect(error).await?;
                },
            }
        }
    }

    /// Tells of `error`, and waits until the session goes on, whose watches are then set again.
    async fn reconnect(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.state.peek_state() == SessionState::SyncConnected {
            return Err(error);
        }
        self.updates.failed(error).await;
        let limit = clock::after(clock::now(), 2 * self.session.session_timeout());
        while self.state.peek_state() == SessionState::Disconnected {
            tokio::select! {
                _ = self.state.changed() => {}
                () = clock::until(limit) => break,
            }
        }
        match self.state.peek_state() {
            SessionState::SyncConnected => self.check().await,
            SessionState::AuthFailed => Err(self.ensemble.error(Error::AuthFailed)),
            _ => Err(self.ensemble.error(Error::SessionExpired)),
        }
    }

    /// Tells who is there if that is news, and else that it still holds.
    async fn tell(&mut self) {
        let folders = self.folders.values();
        let instances = folders.flat_map(|folder| folder.instances.values().flatten().cloned());
        let mut instances: Vec<_> = instances.collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        if self.told.as_ref() == Some(&instances) {
            self.updates.confirmed().await;
        } else {
            self.updates.instances(instances.clone()).await;
            self.told = Some(instances);
        }
    }

    /// Finds out whether a change was missed.
    async fn check(&mut self) -> Result<(), RegistryError> {
        let (ensemble, session) = (&self.ensemble, &*self.session);
        if ensemble.last_change(session, at(&self.root)).await? != self.changed {
            self.stale.insert(Place::Root);
        }
        let known = self.folders.iter();
        let known: Vec<_> = known
            .map(|(name, folder)| (name.clone(), folder.changed))
            .collect();
        for (name, changed) in known {
            let path = format!("{}/{name}", self.root);
            if ensemble.last_change(session, &path).await? != Some(changed) {
                self.stale.insert(Place::Folder(name));
            }
        }
        Ok(())
    }

    /// Reads and watches again what is stale. What could not be read stays so.
    async fn read(&mut self) -> Result<(), RegistryError> {
        if self.stale.contains(&Place::Root) {
            self.read_root().await?;
            self.stale.remove(&Place::Root);
        }
        let folders = self.stale.iter().filter_map(|place| match place {
            Place::Folder(name) => Some(name.clone()),
            _ => None,
        });
        for name in folders.collect::<Vec<_>>() {
            self.read_folder(&name).await?;
            self.stale.remove(&Place::Folder(name));
        }
        self.read_nodes().await
    }

    async fn read_root(&mut self) -> Result<(), RegistryError> {
        let path = at(&self.root);
        let (names, changed, watcher) = loop {
            let read = self.session.get_and_watch_children(path);
            match self.ensemble.ask(&self.session, read).await? {
                Ok((names, stat, watcher)) => break (names, Some(stat.pzxid), watcher),
                Err(Error::NoNode) => {}
                Err(error) => return Err(self.ensemble.error(error)),
            }
            let look = self.session.check_and_watch_stat(path);
            let looked = self.ensemble.ask(&self.session, look).await?;
            match looked.map_err(|error| self.ensemble.error(error))? {
                (None, watcher) => break (Vec::new(), None, watcher),
                // It was made in between.
                (Some(_), _) => {}
            }
        };
        self.changed = changed;
        self.watch(Place::Root, watcher);
        let names = spellings(names, &self.service);
        self.folders.retain(|name, _| names.contains(name));
        for name in names {
            if !self.folders.contains_key(&name) {
                self.folders.insert(name.clone(), Folder::default());
                self.stale.insert(Place::Folder(name));
            }
        }
        Ok(())
    }

    async fn read_folder(&mut self, name: &str) -> Result<(), RegistryError> {
        let path = format!("{}/{name}", self.root);
        let read = self.session.get_and_watch_children(&path);
        let (ids, stat, watcher) = match self.ensemble.ask(&self.session, read).await? {
            Ok(read) => read,
            Err(Error::NoNode) => {
                // The root's watch tells when it is back.
                self.folders.remove(name);
                return Ok(());
            }
            Err(error) => return Err(self.ensemble.error(error)),
        };
        let Some(folder) = self.folders.get_mut(name) else {
            return Ok(());
        };
        folder.changed = stat.pzxid;
        let ids = BTreeSet::from_iter(ids);
        folder.instances.retain(|id, _| ids.contains(id));
        for id in ids {
            if !folder.instances.contains_key(&id) {
                folder.instances.insert(id.clone(), None);
                let folder = name.to_owned();
                self.stale.insert(Place::Node { folder, id });
            }
        }
        self.watch(Place::Folder(name.to_owned()), watcher);
        Ok(())
    }

    async fn read_nodes(&mut self) -> Result<(), RegistryError> {
        let (folders, ensemble, session) = (&self.folders, &self.ensemble, &self.session);
        let root = &*self.root;
        self.stale.retain(|place| match place {
            Place::Node { folder, id } => {
                (folders.get(folder)).is_some_and(|folder| folder.instances.contains_key(id))
            }
            _ => true,
        });
        let nodes = self.stale.iter().filter_map(|place| match place {
            Place::Node { folder, id } => Some((folder.clone(), id.clone())),
            _ => None,
        });
        let nodes: Vec<_> = nodes.collect();
        let reads = nodes.into_iter().map(|(folder, id)| async move {
            let path = format!("{root}/{folder}/{id}");
            let read = match ensemble
                .ask(session, session.get_and_watch_data(&path))
                .await?
            {
                Ok((data, _, watcher)) => Read::Data(data, watcher),
                Err(Error::NoNode) => Read::Gone,
                Err(Error::NoAuth) => Read::Denied,
                Err(error) => return Err(ensemble.error(error)),
            };
            Ok((folder, id, read))
        });
        let mut reads = iter(reads).buffer_unordered(AT_ONCE);
        let mut read = Vec::new();
        let mut failed = None;
        while let Some(one) = reads.next().await {
            match one {
                Ok(one) => read.push(one),
                Err(error) => failed = Some(error),
            }
        }
        drop(reads);
        let mut denied = false;
        for (folder, id, read) in read {
            let place = Place::Node {
                folder: folder.clone(),
                id: id.clone(),
            };
            self.stale.remove(&place);
            let Some(known) = self.folders.get_mut(&folder) else {
                continue;
            };
            match read {
                Read::Data(data, watcher) => {
                    let instance = node::decode(&id, &data);
                    known.instances.insert(id, instance);
                    self.watch(place, watcher);
                }
                // The folder's watch tells when it is back.
                Read::Gone => drop(known.instances.remove(&id)),
                Read::Denied => denied = true,
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut instances = self.folders.values().flat_map(|f| f.instances.values());
        if denied && instances.all(Option::is_none) {
            return Err(self.ensemble.error(Error::NoAuth));
        }
        Ok(())
    }

    fn watch(&self, place: Place, watcher: OneshotWatcher) {
        self.fired.push(Box::pin(async move {
            // Whatever has happened: the place is read, and that says whether the session has ended.
            watcher.changed().await;
            place
        }));
    }
}

/// How often a watch that hears nothing looks whether it should have: two answers over 30 s are what the guard wants.
const CHECK: Duration = Duration::from_secs(15);
/// A deployment in full swing shows up five times a second at most.
const LEAST: Duration = Duration::from_millis(200);
/// How many nodes are asked for at once; a server stops reading from a client at a thousand.
const AT_ONCE: usize = 64;
