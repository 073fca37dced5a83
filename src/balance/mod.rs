//! Picks the instance for each call. See the [guide](crate::docs::balance).
//!
//! A [`Balance`] sends each request to one of the instances that a [`Watch`] names: of two drawn at random, the one whose
//! latency and outstanding calls promise the sooner answer. An instance that keeps failing is left out for a while.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! use std::sync::Arc;
//! use buttress::balance::Balance;
//! use buttress::discovery::Watch;
//! use buttress::{BoxError, Instance};
//! use tower::service_fn;
//!
//! let instances = [Instance::new("a", "10.0.0.1", 80), Instance::new("b", "10.0.0.2", 80)];
//! let balance = Balance::new(Watch::fixed("orders", instances), |instance: &Arc<Instance>| {
//!     let authority = instance.authority();
//!     service_fn(move |path: &'static str| {
//!         let url = format!("http://{authority}{path}");
//!         async move { Ok::<_, BoxError>(url) }
//!     })
//! });
//!
//! let url = balance.send("/orders/7", None).await?;
//! assert!(url.starts_with("http://10.0.0."));
//! # Ok(())
//! # }
//! ```

mod fleet;
mod flight;
mod future;
mod member;
mod picker;
mod tried;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower::Service;

use self::fleet::Fleet;
use self::flight::Flight;
use crate::algo::ejection::Settings;
use crate::classify::{Classify, ErrorsFail};
use crate::discovery::{self, BoxFuture, Snapshot, Watch};
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

pub use self::future::SendFuture;
pub use self::tried::Tried;

/// Makes the service that calls an instance. A closure will do.
pub trait NewEndpoint {
    /// The service of an instance. It is cloned for each call.
    type Service;

    /// The service of `instance`. It is kept for as long as the instance's [key](discovery::Instance::key) is known.
    ///
    /// Called under the balancer's lock: it must neither block nor call through the same balancer.
    fn new_endpoint(&self, instance: &Arc<discovery::Instance>) -> Self::Service;
}

impl<F, S> NewEndpoint for F
where
    F: Fn(&Arc<discovery::Instance>) -> S,
{
    type Service = S;

    fn new_endpoint(&self, instance: &Arc<discovery::Instance>) -> S {
        self(instance)
    }
}

/// Sends each request to one of a service's instances. A cheap clone shares all that is known of them.
///
/// Settings come before the first call: except for [`classify`](Self::classify), a setter gives a balancer with a state
/// of its own.
pub struct Balance<N: NewEndpoint, C = ErrorsFail> {
    new: Arc<N>,
    classify: Arc<C>,
    fleet: Arc<Fleet<N::Service>>,
}

impl<N: NewEndpoint> Balance<N> {
    /// Balances over the instances that `watch` names, each called through the service that `new` makes for it.
    ///
    /// Every error counts as a failure of the instance, save refusals by layers inside.
    pub fn new(watch: Watch, new: N) -> Self {
        Self {
            new: Arc::new(new),
            classify: Arc::default(),
            fleet: Arc::new(Fleet::new(watch, Settings::default(), Observer::default())),
        }
    }
}

impl<N: NewEndpoint, C> Balance<N, C> {
    /// Sets what a result says about the instance.
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> Balance<N, C2> {
        Balance {
            new: self.new,
            classify: Arc::new(classify),
            fleet: self.fleet,
        }
    }

    /// Sets when an instance that keeps failing is left out, and for how long.
    #[must_use]
    pub fn ejection(self, settings: Settings) -> Self {
        let observer = self.fleet.observer.clone();
        self.with_fleet(settings, observer)
    }

    /// Tells `observer` of refusals and of instances that are ejected or return.
    #[must_use]
    pub fn observe(self, observer: impl Into<Observer>) -> Self {
        let settings = self.fleet.ejection.clone();
        self.with_fleet(settings, observer.into())
    }

    /// Sends `request` to an instance, if possible to none that was `tried` before, and marks it there as tried.
    ///
    /// The instance is picked now, unless none is known yet; then the call waits as
    /// [`Watch::resolved`] does.
    ///
    /// # Errors
    ///
    /// What the instance's service gives, or [`Rejected`]: `Unresolved` if no instance is known, `NoInstance` if none of
    /// them is up or those just found are gone again.
    pub fn send<R>(&self, request: R, tried: Option<&Arc<Tried>>) -> SendFuture<N, C, R>
    where
        N::Service: Service<R> + Clone,
    {
        SendFuture::new(self, request, tried)
    }

    /// The instances as they are seen now: first those that calls go to, then those of which there is no need.
    pub fn instances(&self) -> Vec<InstanceView> {
        self.fleet.views(&*self.new)
    }

    fn pick(&self, tried: Option<&Arc<Tried>>) -> Option<Flight<N::Service>> {
        self.fleet.pick(&*self.new, tried)
    }

    /// Waits until instances are known.
    fn resolved(&self) -> BoxFuture<'static, Result<Arc<Snapshot>, Rejected>> {
        let watch = self.fleet.watch.clone();
        Box::pin(async move { watch.resolved().await })
    }

    /// The refusal where all instances that were found are gone again.
    fn no_instance(&self) -> Rejected {
        let service = self.fleet.watch.snapshot();
        let rejected = Rejected::new("balance", Reason::NoInstance).named(service.service());
        self.fleet.observer.refused(rejected)
    }

    fn with_fleet(mut self, settings: Settings, observer: Observer) -> Self {
        self.fleet = Arc::new(Fleet::new(self.fleet.watch.clone(), settings, observer));
        self
    }
}

impl<N: NewEndpoint, C> Clone for Balance<N, C> {
    fn clone(&self) -> Self {
        Self {
            new: self.new.clone(),
            classify: self.classify.clone(),
            fleet: self.fleet.clone(),
        }
    }
}

impl<N: NewEndpoint, C> fmt::Debug for Balance<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("watch", &self.fleet.watch)
            .field("ejection", &self.fleet.ejection)
            .finish_non_exhaustive()
    }
}

/// Always ready, since readiness is the instance's: the call waits for it.
impl<N, C, R> Service<R> for Balance<N, C>
where
    N: NewEndpoint,
    N::Service: Service<R> + Clone,
    <N::Service as Service<R>>::Error: From<Rejected>,
    C: Classify<<N::Service as Service<R>>::Response, <N::Service as Service<R>>::Error>,
{
    type Response = <N::Service as Service<R>>::Response;
    type Error = <N::Service as Service<R>>::Error;
    type Future = SendFuture<N, C, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.send(request, None)
    }
}

/// An instance as a [`Balance`] sees it at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceView {
    /// The instance, as the registry last described it.
    pub instance: Arc<discovery::Instance>,
    /// Whether the registry no longer names it, but its loss is not yet confirmed.
    pub held: bool,
    /// The average latency that picks go by: peaks at once, comes down in time, failures count as slow calls.
    pub latency: Duration,
    /// How many calls to it are under way.
    pub in_flight: usize,
    /// If it is ejected: when one call will try whether it works again.
    pub ejected_until: Option<Instant>,
}
