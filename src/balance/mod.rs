//! Picks the instance for each call.
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
use crate::clock;
use crate::deadline::Deadline;
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
    /// The instance is picked now, unless none is known yet; then the call waits until one is, for 5 s at most and not
    /// past its [`Deadline`].
    ///
    /// # Errors
    ///
    /// What the instance's service gives, or [`Rejected`]: `Unresolved` if no instance is known, `NoInstance` if those
    /// just found are gone again, `DeadlineExceeded` if the deadline passed first.
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

    /// Waits until instances are known, and tells of it if none are.
    fn resolved(&self) -> BoxFuture<'static, Result<Arc<Snapshot>, Rejected>> {
        let (watch, observer) = (self.fleet.watch.clone(), self.fleet.observer.clone());
        let limit = clock::after(clock::now(), RESOLVE_WITHIN);
        let (until, late) = match Deadline::current() {
            Some(deadline) if deadline.instant() < limit => {
                (deadline.instant(), Reason::DeadlineExceeded)
            }
            _ => (limit, Reason::Unresolved),
        };
        Box::pin(async move {
            let reason = tokio::select! {
                biased;
                snapshot = watch.changed(0) => match snapshot.instances() {
                    [] => Reason::Unresolved,
                    _ => return Ok(snapshot),
                },
                () = clock::until(until) => late,
            };
            Err(refused(&watch, &observer, reason))
        })
    }

    fn refused(&self, reason: Reason) -> Rejected {
        refused(&self.fleet.watch, &self.fleet.observer, reason)
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

/// Refuses a call and tells of it.
fn refused(watch: &Watch, observer: &Observer, reason: Reason) -> Rejected {
    let snapshot = watch.snapshot();
    observer.refused(Rejected::new("balance", reason).named(snapshot.service()))
}

/// How long a call waits for the first instance: long enough for a registry's first answer, too short to pile up calls.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
