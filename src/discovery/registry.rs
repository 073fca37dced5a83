use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::instance::{Instance, Status};
use crate::error::BoxError;

/// A boxed future, as the methods of [`Registry`] return it: calls to a registry are rare.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A registry: wire format to [`Update`], and nothing else.
///
/// Caching, back-off, guarding and persistence are the [`Resolver`](super::Resolver)'s; heartbeats are the
/// [`Registration`](super::Registration)'s.
pub trait Registry: Send + Sync + 'static {
    /// What it is and where, for people: `consul at http://127.0.0.1:8500`. Holds no secret.
    fn name(&self) -> &str;

    /// Watches `service` and sends what it hears to `updates`, beginning with all instances there are.
    ///
    /// The name may come from the host of a URL, which is in lower case: its case must not matter.
    ///
    /// Runs until it fails; whoever asked begins a new watch after a wait. An empty list is an answer, not an error.
    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError>;

    /// Registers `instance` of `service`. Unless it is renewed within `ttl`, the registry may drop it.
    fn register(
        &self,
        service: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let _ = (service, instance, ttl);
        unsupported(self.name(), "register")
    }

    /// Renews the lease of `instance` and tells its status.
    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let _ = (service, instance, status);
        unsupported(self.name(), "renew")
    }

    /// Takes `instance` out of the registry. One that is not there is no error.
    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let _ = (service, instance);
        unsupported(self.name(), "deregister")
    }
}

impl<R: Registry + ?Sized> Registry for Arc<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        (**self).watch(service, updates)
    }

    fn register(
        &self,
        service: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        (**self).register(service, instance, ttl)
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        (**self).renew(service, instance, status)
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        (**self).deregister(service, instance)
    }
}

/// What a registry says of a service.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// These are all the instances there are.
    Instances {
        /// The instances, whatever their status.
        instances: Vec<Instance>,
        /// Whether those that are missing were taken out on purpose, so that the guard need not hold them.
        authoritative: bool,
    },
    /// The last answer still holds.
    Confirmed,
    /// The registry cannot be read at the moment. The watch goes on, and says so when it can be again.
    Failed(RegistryError),
}

/// How a registry that was asked to renew a lease answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is renewed.
    Renewed,
    /// The registry does not know the instance: register it again.
    Unknown,
}

/// Where a watch sends its [`Update`]s.
#[derive(Clone, Debug)]
pub struct Updates {
    sender: mpsc::Sender<Update>,
}

impl Updates {
    /// A sender and the receiver that gets what it sends.
    pub fn channel() -> (Self, mpsc::Receiver<Update>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self { sender }, receiver)
    }

    /// Sends `update`; waits if the reader is behind. Does nothing if the reader is gone, since the watch is then
    /// dropped as well.
    pub async fn send(&self, update: Update) {
        let _ = self.sender.send(update).await;
    }

    /// Sends all instances there are; those missing may have been lost rather than taken out.
    pub async fn instances(&self, instances: Vec<Instance>) {
        self.send(Update::Instances {
            instances,
            authoritative: false,
        })
        .await;
    }

    /// Says that the last answer still holds. A registry that tells of changes only does well to say so before its
    /// watch ends: the age of its answer counts from here.
    pub async fn confirmed(&self) {
        self.send(Update::Confirmed).await;
    }

    /// Says that the registry cannot be read, although the watch goes on.
    pub async fn failed(&self, error: RegistryError) {
        self.send(Update::Failed(error)).await;
    }
}

/// Why a registry could not be asked, or what was wrong with its answer. Its text holds no secret.
#[derive(Clone, Debug)]
pub struct RegistryError {
    // In a box, so that the updates that a watch has room for are small: most hold no error.
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    registry: Arc<str>,
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure a [`RegistryError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing answered: connection refused, name not found, broken off.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// It did not let us: credentials missing, wrong or without the right.
    Denied,
    /// It answered that it failed.
    Failed,
    /// It answered what cannot be understood.
    Malformed,
    /// It cannot do this.
    Unsupported,
}

impl RegistryError {
    /// An error of the registry of that [name](Registry::name). `message` must hold no secret.
    pub fn new(registry: impl Into<Arc<str>>, kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            registry: registry.into(),
            kind,
            message: message.into(),
            source: None,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// Says what lies behind it. Its text must hold no secret: strip URLs first.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// The registry it came from.
    pub fn registry(&self) -> &str {
        &self.inner.registry
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What went wrong, with its causes, without the registry's name.
    pub fn message(&self) -> String {
        use fmt::Write as _;

        let mut text = self.inner.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            // Writing to a `String` cannot fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }
}

// The causes are not compared: an error from elsewhere need not be comparable.
impl PartialEq for RegistryError {
    fn eq(&self, other: &Self) -> bool {
        let (this, other) = (&*self.inner, &*other.inner);
        (&this.registry, this.kind, &this.message) == (&other.registry, other.kind, &other.message)
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.registry, self.inner.message)
    }
}

impl StdError for RegistryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

fn unsupported<T: Send + 'static>(
    registry: &str,
    what: &str,
) -> BoxFuture<'static, Result<T, RegistryError>> {
    let error = RegistryError::new(
        registry,
        ErrorKind::Unsupported,
        format!("cannot {what} an instance"),
    );
    Box::pin(async move { Err(error) })
}
