use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::disk::{SnapshotFile, Store};
use super::registry::Registry;
use super::service::Service;
use super::snapshot::Snapshot;
use super::watch::{Handle, Shared, State, Watch};
use crate::clock;
use crate::observe::Observer;

/// Finds the instances of services, and keeps them at hand whatever the registries do. A cheap clone shares.
///
/// A service is watched once, whoever asks, for as long as somebody holds a [`Watch`] of it, and for a minute after.
#[derive(Clone)]
pub struct Resolver {
    settings: Arc<Settings>,
    services: Arc<Services>,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) registries: Vec<Arc<dyn Registry>>,
    pub(super) max_stale: Option<Duration>,
    pub(super) observer: Observer,
    first_answer: Duration,
    snapshot_file: Option<SnapshotFile>,
}

impl Resolver {
    /// Resolves names through `registry`.
    pub fn new(registry: impl Registry) -> Self {
        Self {
            settings: Arc::new(Settings {
                registries: vec![Arc::new(registry)],
                max_stale: None,
                observer: Observer::default(),
                first_answer: Duration::from_secs(3),
                snapshot_file: None,
            }),
            services: Arc::default(),
        }
    }

    /// Resolves through `registry` what those before it do not know.
    ///
    /// It is asked when each of them says that it has no instance of the service, fails without ever having named one,
    /// or is silent for the first second. An outage never leads here from instances already known.
    #[must_use]
    pub fn or(self, registry: impl Registry) -> Self {
        self.with(|settings| settings.registries.push(Arc::new(registry)))
    }

    /// Uses the instances of a registry that fails no longer than `age` after it last confirmed them. By default for
    /// ever: a peer that has moved is found out by calling it, and one that has not is still there.
    #[must_use]
    pub fn max_stale(self, age: Duration) -> Self {
        self.with(|settings| settings.max_stale = Some(age))
    }

    /// How long [`Watch::resolved`] waits for a first answer, counted from when the service was first watched. Default
    /// 3 s: a registry that works answers far sooner, and one that restarts often within that.
    #[must_use]
    pub fn first_answer(self, limit: Duration) -> Self {
        self.with(|settings| settings.first_answer = limit)
    }

    /// Keeps what it knows in `file`, and begins with what it finds there: until a registry answers, those instances are
    /// used, and its first answer is doubted as any later one is.
    #[must_use]
    pub fn snapshot_file(self, file: SnapshotFile) -> Self {
        self.with(|settings| settings.snapshot_file = Some(file))
    }

    /// Tells `observer` what the registries do and how the instances change.
    #[must_use]
    pub fn observe(self, observer: impl Into<Observer>) -> Self {
        self.with(|settings| settings.observer = observer.into())
    }

    /// The instances of `service`, now and as they change.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: a task watches the registry.
    #[track_caller]
    pub fn watch(&self, service: impl Into<Arc<str>>) -> Watch {
        let service = service.into();
        let mut watched = self.services.watched();
        let known = watched.get(&service).filter(|known| known.hold());
        let known = known.cloned().unwrap_or_else(|| {
            watched.retain(|_, other| !other.has_ended());
            if watched.len() >= MOST_SERVICES {
                watched.retain(|_, other| !other.end());
            }
            let new = self.start(&service);
            watched.insert(service, new.clone());
            new
        });
        Watch::held(Handle {
            shared: known.shared,
            task: Some(known.task),
            services: Arc::downgrade(&self.services),
        })
    }

    fn start(&self, service: &Arc<str>) -> Watched {
        let mut nothing = Snapshot::fixed(Arc::clone(service), []);
        nothing.version = 0;
        let shared = Arc::new(Shared::new(
            nothing,
            State::default(),
            clock::after(clock::now(), self.settings.first_answer),
            self.settings.observer.clone(),
        ));
        let settings = Arc::clone(&self.settings);
        let store = self.services.store(&settings);
        let writer = Service::new(Arc::clone(service), settings, store, Arc::clone(&shared));
        let services = Arc::downgrade(&self.services);
        let task = tokio::spawn(async move {
            writer.run().await;
            if let Some(services) = services.upgrade() {
                services.watched().retain(|_, other| !other.has_ended());
            }
        });
        Watched {
            shared,
            task: task.abort_handle(),
        }
    }

    /// Settings are part of what is shared, so that another setting makes another resolver.
    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self.services = Arc::default();
        self
    }
}

/// The services that are watched: those that somebody holds, and those that somebody held a moment ago.
#[derive(Debug, Default)]
pub(super) struct Services {
    watched: Mutex<HashMap<Arc<str>, Watched>>,
    store: OnceLock<Arc<Store>>,
}

/// A service and the task that writes its snapshots.
#[derive(Clone, Debug)]
struct Watched {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Services {
    fn watched(&self) -> MutexGuard<'_, HashMap<Arc<str>, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, settings: &Settings) -> Option<Arc<Store>> {
        let file = settings.snapshot_file.clone()?;
        let new = || Store::new(file, settings.max_stale, settings.observer.clone());
        Some(Arc::clone(self.store.get_or_init(|| Arc::new(new()))))
    }
}

impl Drop for Services {
    /// Nobody can ask for those that nobody holds.
    fn drop(&mut self) {
        for watched in self.watched().values() {
            watched.end();
        }
    }
}

impl Watched {
    /// Counts one more who holds it, unless it has ended.
    fn hold(&self) -> bool {
        !self.task.is_finished() && self.shared.holders.join()
    }

    fn has_ended(&self) -> bool {
        self.task.is_finished() || self.shared.holders.has_ended()
    }

    /// Ends it if nobody holds it, and says whether it has ended.
    fn end(&self) -> bool {
        let has_ended = self.task.is_finished() || self.shared.holders.end();
        if has_ended {
            self.task.abort();
        }
        has_ended
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registries: Vec<_> = self.settings.registries.iter().map(|r| r.name()).collect();
        f.debug_struct("Resolver")
            .field("registries", &registries)
            .field("max_stale", &self.settings.max_stale)
            .field("first_answer", &self.settings.first_answer)
            .field("snapshot_file", &self.settings.snapshot_file)
            .finish_non_exhaustive()
    }
}

/// More than any one process calls. Beyond, those that nobody holds are no longer kept for the next one who asks.
const MOST_SERVICES: usize = 1024;
