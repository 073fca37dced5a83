//! What is below the node of a service, read piece by piece.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{FutureExt, OptionFuture, join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt, iter};
use zookeeper_client::{Client, Error, OneshotWatcher};

use super::ensemble::{Ensemble, at, spellings};
use super::list::{Listed, list_folder, list_root};
use super::node;
use crate::discovery::{BoxFuture, Instance, RegistryError};

/// A copy of what is below the node of a service, and the watches that tell what of it is out of date.
pub(super) struct Tree {
    ensemble: Ensemble,
    session: Arc<Client>,
    root: String,
    service: String,
    /// What the service's name may be written like below `root`. As a rule there is one.
    folders: BTreeMap<String, Folder>,
    /// The last change of who is below `root`, or nothing where that does not exist.
    changed: Option<i64>,
    /// What has to be read.
    stale: BTreeSet<Place>,
    fired: FuturesUnordered<BoxFuture<'static, Place>>,
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

impl Tree {
    /// Nothing but what is to be read. The service is taken to be written there as it is here, until the root says so.
    pub(super) fn new(
        ensemble: Ensemble,
        session: Arc<Client>,
        root: String,
        service: String,
    ) -> Self {
        Self {
            ensemble,
            session,
            root,
            folders: BTreeMap::from([(service.clone(), Folder::default())]),
            changed: None,
            stale: BTreeSet::from([Place::Root, Place::Folder(service.clone())]),
            service,
            fired: FuturesUnordered::new(),
        }
    }

    /// All instances, by id.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let folders = self.folders.values();
        let instances = folders.flat_map(|folder| folder.instances.values().flatten().cloned());
        let mut instances: Vec<_> = instances.collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances
    }

    /// Waits until something is out of date.
    pub(super) async fn changed(&mut self) {
        if let Some(place) = self.fired.next().await {
            self.stale.insert(place);
        }
    }

    /// Takes in what else is out of date by now.
    pub(super) fn settle(&mut self) {
        while let Some(Some(place)) = self.fired.next().now_or_never() {
            self.stale.insert(place);
        }
    }

    /// Finds out whether a change was missed.
    pub(super) async fn check(&mut self) -> Result<(), RegistryError> {
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
    pub(super) async fn read(&mut self) -> Result<(), RegistryError> {
        loop {
            let is_root = self.stale.contains(&Place::Root);
            let names = self.stale.iter().filter_map(|place| match place {
                Place::Folder(name) => Some(name.clone()),
                _ => None,
            });
            let names: Vec<_> = names.collect();
            if !is_root && names.is_empty() {
                return self.read_nodes().await;
            }
            // Both at once: on a long way to the servers, it is the answers in a row that take time.
            let (ensemble, session, root) = (&self.ensemble, &*self.session, &*self.root);
            let listed =
                OptionFuture::from(is_root.then(|| list_root(ensemble, session, at(root))));
            let folders = names.iter().map(|name| async move {
                let path = format!("{root}/{name}");
                list_folder(ensemble, session, &path).await
            });
            let (listed, folders) = join(listed, join_all(folders)).await;
            if let Some(listed) = listed {
                self.take_root(listed?);
            }
            for (name, listed) in names.into_iter().zip(folders) {
                match listed? {
                    Some(listed) => self.take_folder(&name, listed),
                    // It may have come before the root was read: its watch would not tell.
                    None if is_root && self.folders.contains_key(&name) => continue,
                    // The root's watch tells when it is back.
                    None => drop(self.folders.remove(&name)),
                }
                self.stale.remove(&Place::Folder(name));
            }
        }
    }

    fn take_root(&mut self, listed: Listed<Option<i64>>) {
        self.changed = listed.changed;
        self.watch(Place::Root, listed.watcher);
        self.stale.remove(&Place::Root);
        let names = spellings(listed.names, &self.service);
        self.folders.retain(|name, _| names.contains(name));
        for name in names {
            if !self.folders.contains_key(&name) {
                self.folders.insert(name.clone(), Folder::default());
                self.stale.insert(Place::Folder(name));
            }
        }
    }

    fn take_folder(&mut self, name: &str, listed: Listed<i64>) {
        let Some(folder) = self.folders.get_mut(name) else {
            return;
        };
        folder.changed = listed.changed;
        let ids = BTreeSet::from_iter(listed.names);
        folder.instances.retain(|id, _| ids.contains(id));
        for id in ids {
            if !folder.instances.contains_key(&id) {
                folder.instances.insert(id.clone(), None);
                let folder = name.to_owned();
                self.stale.insert(Place::Node { folder, id });
            }
        }
        self.watch(Place::Folder(name.to_owned()), listed.watcher);
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
            let read = session.get_and_watch_data(&path);
            (folder, id, ensemble.ask(session, read).await)
        });
        let reads: Vec<_> = iter(reads).buffer_unordered(AT_ONCE).collect().await;
        let (mut failed, mut denied) = (None, false);
        for (folder, id, read) in reads {
            let Some(known) = self.folders.get_mut(&folder) else {
                continue;
            };
            let place = Place::Node {
                folder,
                id: id.clone(),
            };
            match read {
                Ok(Ok((data, _, watcher))) => {
                    let instance = node::decode(&id, &data);
                    known.instances.insert(id, instance);
                    self.watch(place.clone(), watcher);
                }
                // The folder's watch tells when it is back.
                Ok(Err(Error::NoNode)) => drop(known.instances.remove(&id)),
                Ok(Err(Error::NoAuth)) => denied = true,
                Ok(Err(error)) => {
                    failed = Some(self.ensemble.error(error));
                    continue;
                }
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            }
            self.stale.remove(&place);
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

/// How many nodes are asked for at once; a server stops reading from a client at a thousand.
const AT_ONCE: usize = 64;
