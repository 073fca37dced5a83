//! Instances that are kept registered, each by a session of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use zookeeper_client::{Client, Error, SessionState};

use super::ensemble::{Ensemble, joined};
use super::node::{self, Payload};
use super::put::put;
use crate::clock;
use crate::discovery::{Instance, RegistryError, Renewal, Status};

/// What this process registered.
///
/// An ephemeral node lasts as long as its session, and a session as long as the process. So that an instance goes as
/// well when its heartbeats end in a process that goes on, its session is closed once it was not renewed in time.
#[derive(Clone, Default)]
pub(super) struct Leases {
    held: Arc<Mutex<HashMap<Key, Held>>>,
    pub(super) payload: Payload,
}

/// Service, in lower case, and instance.
type Key = (String, String);

#[derive(Clone)]
struct Held {
    /// Gone once the lease has run out.
    session: Weak<Client>,
    /// The session's id, by which its nodes are known.
    owner: i64,
    ttl: Duration,
    service: String,
    path: String,
    since: u64,
    told: Status,
    /// Its session is closed when this is dropped.
    renewed: watch::Sender<()>,
}

impl Leases {
    pub(super) async fn register(
        &self,
        ensemble: &Ensemble,
        root: &str,
        service: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> Result<(), RegistryError> {
        ensemble.check_name(service)?;
        ensemble.check_name(&instance.id)?;
        let key = key(service, instance);
        let again = self.find(&key).filter(|held| held.ttl == ttl);
        let again = again.and_then(|held| Some((held.connected()?, held)));
        let (session, again) = match again {
            Some((session, held)) => (session, Some(held)),
            None => (Arc::new(ensemble.open(ttl).await?), None),
        };
        let name = ensemble.spelling(&session, root, service).await?;
        let folder = joined(root, &name);
        let path = format!("{folder}/{}", instance.id);
        let (since, renewed) = match again {
            Some(held) => (held.since, held.renewed),
            None => (now(), keep(&session, ttl)),
        };
        let told = instance.status;
        let data = node::encode(&name, instance, told, since, self.payload);
        put(ensemble, &session, &folder, &path, &data).await?;
        let held = Held {
            session: Arc::downgrade(&session),
            owner: session.session_id().0,
            ttl,
            service: name,
            path,
            since,
            told,
            renewed,
        };
        held.renewed.send_replace(());
        // A session from before goes now, and with it nothing: the node is of this one.
        self.held().insert(key, held);
        Ok(())
    }

    pub(super) async fn renew(
        &self,
        ensemble: &Ensemble,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> Result<Renewal, RegistryError> {
        let key = key(service, instance);
        let Some(held) = self.find(&key) else {
            return Ok(Renewal::Unknown);
        };
        let Some(session) = held.session.upgrade() else {
            return Ok(Renewal::Unknown);
        };
        if session.state().is_terminated() {
            return Ok(Renewal::Unknown);
        }
        if session.state() == SessionState::Disconnected {
            // Servers that lost their data refuse whoever knows of more than they do, until the session is over.
            let other = ensemble.open(held.ttl).await?;
            let found = ensemble.ask(&other, other.check_stat(&held.path)).await?;
            return match found {
                Ok(None) => Ok(Renewal::Unknown),
                Ok(Some(_)) => Err(ensemble.error(Error::ConnectionLoss)),
                Err(error) => Err(ensemble.error(error)),
            };
        }
        let found = ensemble
            .ask(&session, session.check_stat(&held.path))
            .await?;
        let Some(stat) = found.map_err(|error| ensemble.error(error))? else {
            return Ok(Renewal::Unknown);
        };
        // One that somebody else has put there since is theirs to keep.
        if stat.ephemeral_owner == held.owner && held.told != status {
            let data = node::encode(&held.service, instance, status, held.since, self.payload);
            let told = session.set_data(&held.path, &data, Some(stat.version));
            match ensemble.ask(&session, told).await? {
                Ok(_) => {}
                Err(Error::NoNode) => return Ok(Renewal::Unknown),
                Err(error) => return Err(ensemble.error(error)),
            }
            if let Some(held) = self.held().get_mut(&key) {
                held.told = status;
            }
        }
        held.renewed.send_replace(());
        Ok(Renewal::Renewed)
    }

    pub(super) async fn deregister(
        &self,
        ensemble: &Ensemble,
        root: &str,
        service: &str,
        instance: &Instance,
    ) -> Result<(), RegistryError> {
        ensemble.check_name(service)?;
        ensemble.check_name(&instance.id)?;
        let held = self.held().remove(&key(service, instance));
        let session = match held.as_ref().and_then(Held::connected) {
            Some(session) => session,
            None => Arc::new(ensemble.open(Duration::ZERO).await?),
        };
        let path = match &held {
            Some(held) => held.path.clone(),
            None => {
                let name = ensemble.spelling(&session, root, service).await?;
                format!("{}/{}", joined(root, &name), instance.id)
            }
        };
        if let Some(held) = held {
            let found = ensemble.ask(&session, session.check_stat(&path)).await?;
            let stat = found.map_err(|error| ensemble.error(error))?;
            // Somebody else's, or nobody's.
            if stat.is_none_or(|stat| stat.ephemeral_owner != held.owner) {
                return Ok(());
            }
        }
        match ensemble.ask(&session, session.delete(&path, None)).await? {
            Ok(()) | Err(Error::NoNode) => Ok(()),
            Err(error) => Err(ensemble.error(error)),
        }
    }

    fn find(&self, key: &Key) -> Option<Held> {
        self.held().get(key).cloned()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn connected(&self) -> Option<Arc<Client>> {
        let session = self.session.upgrade()?;
        (session.state() == SessionState::SyncConnected).then_some(session)
    }
}

/// Holds `session` until what is returned is dropped, or for `ttl` after it was told of last.
fn keep(session: &Arc<Client>, ttl: Duration) -> watch::Sender<()> {
    let session = Arc::clone(session);
    let (renewed, mut heard) = watch::channel(());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                told = heard.changed() => if told.is_err() { break },
                () = clock::sleep(ttl) => break,
            }
        }
        drop(session);
    });
    renewed
}

fn key(service: &str, instance: &Instance) -> Key {
    (service.to_ascii_lowercase(), instance.id.clone())
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
