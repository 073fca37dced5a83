//! The thick client: calls services by name, each under its own policy. See the [guide](crate::docs::client).
//!
//! A [`Client`] knows no HTTP. A [`Transport`] tells it which service a request names, whether it may be sent again and
//! how to send it to an instance; [`transport::reqwest`](crate::transport) is one. What a call meets on its way:
//!
//! ```text
//! call ─▶ timeout ─▶ bulkhead ─▶ retry ─▶ circuit breaker ─▶ balance ─▶ attempt timeout ─▶ transport
//!         (total)                  │       (per service)     (per instance: load, ejection)
//!                                  └── each attempt to an instance not yet tried
//! ```
//!
//! The total timeout stands outside, so that waiting counts. The bulkhead counts calls rather than attempts, so that a
//! retry holds no second place. The breaker sees each attempt, and a retry that it refuses is not tried again. The
//! balancer sees an attempt that timed out as a failure of that instance.

mod policy;
mod services;
mod stack;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Service, ServiceExt};

use crate::balance::InstanceView;
use crate::budget::RetryBudget;
use crate::deadline::Deadline;
use crate::discovery::{BoxFuture, Resolver, Watch};
use crate::error::{Error, Rejected};
use crate::layers::bulkhead::Bulkhead;
use crate::layers::circuit_breaker::CircuitBreaker;
use crate::observe::Observer;

pub use self::policy::Policy;
pub use self::transport::Transport;

use self::services::Services;
use self::stack::{Call, Protected};

/// Calls services by name. A cheap clone shares everything.
///
/// Settings come before the first call: a setter gives a client with a state of its own.
#[derive(Debug)]
pub struct Client<T: Transport> {
    settings: Arc<Settings<T>>,
    services: Arc<Services<Protected<T>>>,
}

#[derive(Clone, Debug)]
struct Settings<T> {
    transport: T,
    resolver: Resolver,
    policies: HashMap<Box<str>, Policy>,
    policy: Policy,
    pass_through: bool,
    observer: Observer,
}

impl<T: Transport> Client<T> {
    /// A client that finds instances through `resolver` and sends requests through `transport`.
    pub fn new(transport: T, resolver: Resolver) -> Self {
        Self {
            settings: Arc::new(Settings {
                transport,
                resolver,
                policies: HashMap::new(),
                policy: Policy::default(),
                pass_through: false,
                observer: Observer::default(),
            }),
            services: Arc::default(),
        }
    }

    /// Sets the policy of `service`.
    #[must_use]
    pub fn policy(self, service: impl Into<Box<str>>, policy: Policy) -> Self {
        self.set(|settings| {
            settings.policies.insert(service.into(), policy);
        })
    }

    /// Sets the policy of every service that has none of its own.
    #[must_use]
    pub fn default_policy(self, policy: Policy) -> Self {
        self.set(|settings| settings.policy = policy)
    }

    /// Lets a request out as it is if its host is an IP address, or a name that the registries answer they do not know.
    /// Such a call has the default policy's timeout and no other protection.
    ///
    /// Without this, it is refused. A name that one of the registries could never be asked for is refused either way,
    /// since it may be a service, and so is a service whose last instance has gone.
    #[must_use]
    pub fn pass_through(self) -> Self {
        self.set(|settings| settings.pass_through = true)
    }

    /// Tells `observer` of what happens in every layer of every service.
    #[must_use]
    pub fn observe(self, observer: impl Into<Observer>) -> Self {
        self.set(|settings| settings.observer = observer.into())
    }

    /// Sends `request` to the service that it names.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] says which layer refused or gave up: `Unresolved` if no registry knows an instance, with
    /// what each of them said as its source. [`Error::Inner`] is the transport's error of the last attempt.
    pub async fn send(&self, request: T::Request) -> Result<T::Response, Error<T::Error>> {
        let settings = &*self.settings;
        let name = match settings.transport.service(&request) {
            Ok(name) => name,
            Err(_) if settings.pass_through => return self.send_as_is(request).await,
            Err(rejected) => return Err(settings.refused(rejected)),
        };
        let service = self.protected(name);
        if settings.pass_through && service.watch.snapshot().instances().is_empty() {
            // The wait for what the registries say is part of the call.
            let deadline = Deadline::within(settings.policy_of(name).timeout);
            return deadline.scope(self.send_anywhere(&service, request)).await;
        }
        service.stack.clone().oneshot(Call::new(request)).await
    }

    /// Sends `request` as it is if the registries do not know the service.
    async fn send_anywhere(
        &self,
        service: &Protected<T>,
        request: T::Request,
    ) -> Result<T::Response, Error<T::Error>> {
        if service.watch.find().await.is_err() && service.watch.is_unknown() {
            return self.send_as_is(request).await;
        }
        service.stack.clone().oneshot(Call::new(request)).await
    }

    /// Whoever is told of what happens.
    #[cfg(feature = "reqwest")]
    pub(crate) fn observer(&self) -> &Observer {
        &self.settings.observer
    }

    /// What protects the calls to `service`, to be read and steered.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, if the service was not called before: a task watches the registry.
    #[track_caller]
    pub fn service(&self, service: &str) -> ServiceHandle {
        let protected = self.protected(service);
        ServiceHandle {
            breaker: protected.breaker.clone(),
            bulkhead: protected.bulkhead.clone(),
            retry_budget: protected.retry_budget.clone(),
            watch: protected.watch.clone(),
            instances: Box::new(move || protected.balance.instances()),
        }
    }

    /// The transport, for a client of its own kind around this one.
    pub fn transport(&self) -> &T {
        &self.settings.transport
    }

    /// Changes the transport.
    #[must_use]
    pub fn map_transport(self, change: impl FnOnce(&mut T)) -> Self {
        self.set(|settings| change(&mut settings.transport))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings<T>)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self.services = Arc::default();
        self
    }

    fn protected(&self, name: &str) -> Arc<Protected<T>> {
        self.services.find_or_insert(name, || {
            let settings = &*self.settings;
            let policy = settings.policy_of(name);
            let watch = settings.resolver.watch(name);
            Protected::new(name, policy, watch, &settings.transport, &settings.observer)
        })
    }

    async fn send_as_is(&self, request: T::Request) -> Result<T::Response, Error<T::Error>> {
        let deadline = Deadline::within(self.settings.policy.timeout);
        let deadline = Deadline::current().map_or(deadline, |outer| outer.min(deadline));
        let transport = &self.settings.transport;
        transport.call_as_is(request, Some(deadline)).await
    }
}

impl<T> Settings<T> {
    fn policy_of(&self, service: &str) -> &Policy {
        self.policies.get(service).unwrap_or(&self.policy)
    }

    fn refused<E>(&self, rejected: Rejected) -> Error<E> {
        self.observer.refused(rejected).into()
    }
}

impl<T: Transport> Clone for Client<T> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            services: self.services.clone(),
        }
    }
}

impl<T: Transport> Service<T::Request> for Client<T> {
    type Response = T::Response;
    type Error = Error<T::Error>;
    type Future = BoxFuture<'static, Result<T::Response, Error<T::Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: T::Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// What protects the calls to one service; see [`Client::service`].
pub struct ServiceHandle {
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    retry_budget: RetryBudget,
    watch: Watch,
    instances: Box<dyn Fn() -> Vec<InstanceView> + Send + Sync>,
}

impl ServiceHandle {
    /// The circuit breaker around the service.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// The limit on outstanding calls.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// How many retries the calls to the service pay for.
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.retry_budget
    }

    /// The instances as the registries name them.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The instances as the balancer sees them.
    pub fn instances(&self) -> Vec<InstanceView> {
        (self.instances)()
    }
}
