use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::backoff::{Backoff, jittered};
use super::instance::{Instance, Status};
use super::registry::{BoxFuture, ErrorKind, Registry, RegistryError, Renewal};
use crate::clock;
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;

/// What it takes to register an instance and keep it registered.
#[must_use = "nothing is registered before `start`"]
pub struct Registration {
    registry: Arc<dyn Registry>,
    service: Arc<str>,
    instance: Instance,
    ttl: Duration,
    drain: Duration,
    health: Arc<dyn Fn() -> Status + Send + Sync>,
    observer: Observer,
}

impl Registration {
    /// Registers `instance` as one of `service`.
    pub fn new(registry: impl Registry, service: impl Into<Arc<str>>, instance: Instance) -> Self {
        let status = instance.status;
        Self {
            registry: Arc::new(registry),
            service: service.into(),
            instance,
            ttl: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            health: Arc::new(move || status),
            observer: Observer::default(),
        }
    }

    /// How long the registry keeps the instance after its last heartbeat; one is sent in every third of it. Default
    /// 30 s: a crash is noticed within that, at the cost of a request in some ten seconds.
    ///
    /// # Panics
    ///
    /// If `ttl` is zero.
    #[track_caller]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        assert!(!ttl.is_zero(), "a ttl of zero is over before it begins");
        self.ttl = ttl;
        self
    }

    /// Asks `health` for the status with each heartbeat. It must not block; a panic in it counts as
    /// [`Status::Down`]. Default: the instance's own status.
    pub fn health(mut self, health: impl Fn() -> Status + Send + Sync + 'static) -> Self {
        self.health = Arc::new(health);
        self
    }

    /// How long [`Registered::deregister`] lets callers notice that the instance is out of service before it takes it
    /// out. Default 5 s, which is enough where the registry notifies its clients; where they poll, take their interval.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Tells `observer` of registrations and failures.
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// Registers the instance at once, and keeps it registered in the background.
    ///
    /// A registry that is down is asked again until it answers; one that has forgotten the instance hears of it again.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: a task sends the heartbeats.
    #[track_caller]
    pub fn start(self) -> Registered {
        let (leave, told) = oneshot::channel();
        let (said, heard) = watch::channel(None);
        Registered {
            registry: self.registry.name().to_owned(),
            leave: Some(leave),
            heard,
            task: tokio::spawn(self.run(told, said)),
        }
    }

    async fn run(
        self,
        mut told: oneshot::Receiver<()>,
        said: watch::Sender<Option<Said>>,
    ) -> Result<(), RegistryError> {
        let drains = tokio::select! {
            biased;
            told = &mut told => told.is_ok(),
            never = self.keep(None, &said) => match never {},
        };
        if drains {
            tokio::select! {
                () = clock::sleep(self.drain) => {}
                never = self.keep(Some(Status::OutOfService), &said) => match never {},
            }
        }
        let left = self.registry.deregister(&self.service, &self.instance);
        let left = self.bounded(left).await;
        match &left {
            Ok(()) => self.observer.emit(&Event::Deregistered {
                registry: self.registry.name(),
                service: &self.service,
                instance: &self.instance.id,
            }),
            Err(error) => self.failed(error, Duration::ZERO),
        }
        left
    }

    /// Keeps the instance registered, with the status `leaving` once it is about to leave.
    async fn keep(
        &self,
        leaving: Option<Status>,
        said: &watch::Sender<Option<Said>>,
    ) -> std::convert::Infallible {
        let mut backoff = Backoff::new();
        let mut is_failing = false;
        // One that is leaving was registered before, or never could be.
        let mut is_registered = leaving.is_some();
        let mut again = false;
        loop {
            let status = leaving.unwrap_or_else(|| self.status());
            let heartbeat = jittered(self.ttl / 3, &mut ThreadRng);
            match self.beat(status, is_registered).await {
                Ok(Renewal::Unknown) if leaving.is_some() => std::future::pending().await,
                Ok(Renewal::Unknown) => {
                    is_registered = false;
                    again = true;
                    continue;
                }
                Ok(Renewal::Renewed) => {}
                Err(error) => {
                    let wait = backoff.next(&mut ThreadRng).min(heartbeat);
                    is_failing = true;
                    self.failed(&error, wait);
                    said.send_replace(Some(Err(error)));
                    clock::sleep(wait).await;
                    continue;
                }
            }
            backoff = Backoff::new();
            said.send_replace(Some(Ok(())));
            if std::mem::take(&mut is_failing) {
                self.observer.emit(&Event::RegistryRecovered {
                    registry: self.registry.name(),
                    service: &self.service,
                });
            }
            if !std::mem::replace(&mut is_registered, true) {
                self.observer.emit(&Event::Registered {
                    registry: self.registry.name(),
                    service: &self.service,
                    instance: &self.instance.id,
                    again,
                });
            }
            clock::sleep(heartbeat).await;
        }
    }

    async fn beat(&self, status: Status, is_registered: bool) -> Result<Renewal, RegistryError> {
        if is_registered {
            let renewal = self.registry.renew(&self.service, &self.instance, status);
            return self.bounded(renewal).await;
        }
        let instance = self.instance.clone().status(status);
        let registered = self.registry.register(&self.service, &instance, self.ttl);
        self.bounded(registered).await?;
        Ok(Renewal::Renewed)
    }

    fn failed(&self, error: &RegistryError, wait: Duration) {
        self.observer.emit(&Event::RegistryFailed {
            registry: self.registry.name(),
            service: &self.service,
            error: &error.message(),
            wait,
        });
    }

    fn status(&self) -> Status {
        let health = AssertUnwindSafe(|| (self.health)());
        std::panic::catch_unwind(health).unwrap_or(Status::Down)
    }

    /// A registry that does not answer must not keep the next heartbeat, or a shutdown, waiting.
    async fn bounded<T>(
        &self,
        answer: BoxFuture<'static, Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let limit = (self.ttl / 3).clamp(SHORTEST_LIMIT, LONGEST_LIMIT);
        tokio::select! {
            biased;
            answer = answer => answer,
            () = clock::sleep(limit) => Err(RegistryError::new(
                self.registry.name(),
                ErrorKind::TimedOut,
                format!("no answer within {limit:?}"),
            )),
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("registry", &self.registry.name())
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("ttl", &self.ttl)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// An instance that is kept registered for as long as this lives.
///
/// Dropped, it takes the instance out in the background as well as it can: a runtime that ends right after does not
/// let it. [`deregister`](Self::deregister) does it in order.
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance"]
pub struct Registered {
    registry: String,
    leave: Option<oneshot::Sender<()>>,
    /// How the last heartbeat went, or nothing before the first.
    heard: watch::Receiver<Option<Said>>,
    task: JoinHandle<Result<(), RegistryError>>,
}

/// What the registry said to a heartbeat.
type Said = Result<(), RegistryError>;

impl Registered {
    /// Waits for the registry's first answer, and gives its latest: whether the instance is registered now.
    ///
    /// # Errors
    ///
    /// Why it is not. It is tried again in the background all the same.
    pub async fn registered(&self) -> Result<(), RegistryError> {
        let mut heard = self.heard.clone();
        let latest = match heard.wait_for(Option::is_some).await {
            Ok(latest) => latest.clone(),
            Err(_) => None,
        };
        latest.unwrap_or_else(|| Err(self.ended()))
    }

    /// Says that the instance is out of service, waits for [`drain`](Registration::drain), and takes it out. Ends at
    /// most 5 s after the wait, and goes on in the background if it is dropped.
    ///
    /// # Errors
    ///
    /// If the registry could not be told to take it out; then the lease runs out by itself.
    pub async fn deregister(mut self) -> Result<(), RegistryError> {
        if let Some(leave) = self.leave.take() {
            // Only a task that has ended does not hear it, and then the line below says so.
            let _ = leave.send(());
        }
        let done = (&mut self.task).await;
        done.unwrap_or_else(|_| Err(self.ended()))
    }

    /// Stops the heartbeats and tells nobody, as a crash does.
    pub fn abandon(self) {
        self.task.abort();
    }

    fn ended(&self) -> RegistryError {
        let registry = self.registry.as_str();
        RegistryError::new(registry, ErrorKind::Failed, "the heartbeats have ended")
    }
}

/// No registry is slower than this for a reason other than trouble.
const LONGEST_LIMIT: Duration = Duration::from_secs(5);
/// A short lease must not make an ordinary answer count as late.
const SHORTEST_LIMIT: Duration = Duration::from_secs(1);
