use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::registry::Registry;
use super::service::Service;
use super::snapshot::Snapshot;
use super::watch::{Handle, Shared, State, Watch};
use crate::clock;
use crate::observe::Observer;

/// Finds the instances of services, and keeps them at hand whatever the registries do. A cheap clone shares.
///
/// A service is watched once, whoever asks, for as long as somebody holds a [`Watch`] of it.
#[derive(Clone)]
pub struct Resolver {
    settings: Arc<Settings>,
    services: Arc<Mutex<HashMap<Arc<str>, Weak<Handle>>>>,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) registries: Vec<Arc<dyn Registry>>,
    pub(super) max_stale: Option<Duration>,
    pub(super) observer: Observer,
    first_answer: Duration,
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
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match services.get(&service).and_then(Weak::upgrade) {
            Some(handle) if !handle.has_ended() => handle,
            _ => {
                services.retain(|_, handle| handle.strong_count() > 0);
                let handle = Arc::new(self.start(&service));
                services.insert(service, Arc::downgrade(&handle));
                handle
            }
        };
        Watch { handle }
    }

    fn start(&self, service: &Arc<str>) -> Handle {
        let mut nothing = Snapshot::fixed(Arc::clone(service), []);
        nothing.version = 0;
        let shared = Arc::new(Shared::new(
            nothing,
            State::default(),
            clock::after(clock::now(), self.settings.first_answer),
            self.settings.observer.clone(),
        ));
        let settings = Arc::clone(&self.settings);
        let writer = Service::new(Arc::clone(service), settings, Arc::clone(&shared));
        Handle {
            task: Some(tokio::spawn(writer.run())),
            shared,
        }
    }

    /// Settings are part of what is shared, so that another setting makes another resolver.
    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self.services = Arc::default();
        self
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registries: Vec<_> = self.settings.registries.iter().map(|r| r.name()).collect();
        f.debug_struct("Resolver")
            .field("registries", &registries)
            .field("max_stale", &self.settings.max_stale)
            .field("first_answer", &self.settings.first_answer)
            .finish_non_exhaustive()
    }
}
