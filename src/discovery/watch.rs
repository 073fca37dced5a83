use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::changes::Changes;
use super::discover::Discover;
use super::holders::Holders;
use super::instance::Instance;
use super::resolver::Services;
use super::snapshot::Snapshot;
use super::unresolved::ResolveError;
use crate::clock;
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// A service's instances, as they are now and as they change. A cheap clone shares.
///
/// The registry is watched for as long as somebody holds one, and for a minute after, in case somebody asks again.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What the handle has as well: a load need not go through it.
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// How far the instances of a service can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// No registry has answered yet, or none is asked: a fixed list.
    Bootstrap,
    /// The registry answers, and this is what it says.
    Fresh,
    /// The registry fails, or the runtime has ended in which it was watched; these are the instances it named last.
    Stale {
        /// How long ago they were confirmed.
        age: Duration,
    },
    /// The registry has failed for longer than [`max_stale`](super::Resolver::max_stale): its instances are no longer
    /// used.
    Expired {
        /// How long ago they were confirmed.
        age: Duration,
    },
    /// The registry answers that there is no instance to call.
    Empty {
        /// Whether it says that this is on purpose.
        authoritative: bool,
    },
}

impl Watch {
    /// A list that never changes, without a registry.
    pub fn fixed(
        service: impl Into<Arc<str>>,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Self {
        let snapshot = Snapshot::fixed(service, instances);
        let state = State {
            version: snapshot.version(),
            is_decided: true,
            ..State::default()
        };
        let shared = Shared::new(snapshot, state, clock::now(), Observer::default());
        Self::held(Handle {
            shared: Arc::new(shared),
            task: None,
            services: Weak::new(),
        })
    }

    pub(super) fn held(handle: Handle) -> Self {
        Self {
            shared: Arc::clone(&handle.shared),
            handle: Arc::new(handle),
        }
    }

    /// The latest snapshot. Takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The version of the latest snapshot, without a clone: its count is a line that all threads would share.
    pub(crate) fn version(&self) -> u64 {
        self.shared.snapshot.load().version
    }

    /// Waits for a snapshot of a version above `seen`.
    pub async fn changed(&self, seen: u64) -> Arc<Snapshot> {
        let mut state = self.shared.state.subscribe();
        // The sender is in `self`, so that the wait cannot fail.
        let _ = state.wait_for(|state| state.version > seen).await;
        self.snapshot()
    }

    /// The snapshots from now on, each with what changed since this reader's last one. The first of them has all that
    /// there is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use buttress::{Instance, Registry, Resolver, registries::memory::Memory};
    /// # use std::time::Duration;
    /// # let registry = Memory::new();
    /// # let resolver = Resolver::new(registry.clone());
    /// let mut changes = resolver.watch("orders").changes();
    /// let orders = Instance::new("orders-1", "10.0.0.7", 8080);
    /// registry.register("orders", &orders, Duration::MAX).await?;
    ///
    /// let change = loop {
    ///     let change = changes.changed().await;
    ///     if !change.added.is_empty() {
    ///         break change;
    ///     }
    /// };
    /// assert_eq!(*change.added[0], orders);
    /// assert_eq!(change.snapshot.instances().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn changes(&self) -> Changes {
        Changes::new(self.clone())
    }

    /// The instances as [tower's own balancers](tower::discover) want them: `new` makes the service of each.
    pub fn discover<N, S>(&self, new: N) -> Discover<N>
    where
        N: FnMut(&Arc<Instance>) -> S,
    {
        Discover::new(self.changes(), new)
    }

    /// The latest snapshot that has an instance to call, which is at hand except at the very start.
    ///
    /// Waits for the first answer, but not past the request's [`Deadline`], nor longer than the resolver's
    /// [`first_answer`](super::Resolver::first_answer) after the service was first watched: an outage makes calls wait
    /// only while it is new.
    ///
    /// # Errors
    ///
    /// [`Reason::Unresolved`] if no registry names an instance, or [`Reason::NoInstance`] if none of those named is up.
    /// The source is a [`ResolveError`].
    pub async fn resolved(&self) -> Result<Arc<Snapshot>, Rejected> {
        let observer = &self.shared.observer;
        let resolved = self.find().await;
        resolved.map_err(|rejected| observer.refused(rejected))
    }

    /// As [`resolved`](Self::resolved), for a caller who has another way if there is no instance: nobody is told.
    pub(crate) async fn find(&self) -> Result<Arc<Snapshot>, Rejected> {
        let shared = &self.shared;
        let snapshot = self.snapshot();
        if !snapshot.instances().is_empty() {
            return Ok(snapshot);
        }
        let limit = match Deadline::current() {
            Some(deadline) => shared.first_answer_by.min(deadline.instant()),
            None => shared.first_answer_by,
        };
        let mut state = shared.state.subscribe();
        let decided = async {
            let _ = state.wait_for(|state| state.is_decided).await;
        };
        tokio::select! {
            biased;
            () = decided => {}
            () = clock::until(limit) => {}
        }
        let snapshot = self.snapshot();
        if !snapshot.instances().is_empty() {
            return Ok(snapshot);
        }
        Err(shared.refusal(&snapshot))
    }

    /// Whether nobody watches any more, since the runtime of the task that did has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Whether every registry knows no such service, and none did since it is watched. An outage that follows does not
    /// change what they said.
    pub(crate) fn is_unknown(&self) -> bool {
        self.shared.state.borrow().is_unknown
    }

    /// How far the latest snapshot can be trusted.
    pub fn freshness(&self) -> Freshness {
        let state = self.shared.state.borrow();
        let Some(confirmed_at) = state.confirmed_at else {
            return Freshness::Bootstrap;
        };
        let age = clock::now().saturating_duration_since(confirmed_at);
        match state.using {
            Using::Expired => Freshness::Expired { age },
            Using::Empty { authoritative } => Freshness::Empty { authoritative },
            Using::Failing => Freshness::Stale { age },
            Using::Answering if self.has_ended() => Freshness::Stale { age },
            Using::Answering => Freshness::Fresh,
        }
    }
}

/// What the clones of a [`Watch`] share: one that holds the service.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) task: Option<AbortHandle>,
    /// Where it can be asked for again, for as long as the resolver lives.
    pub(super) services: Weak<Services>,
}

impl Handle {
    /// Whether its task has ended, as it does with its runtime.
    pub(super) fn has_ended(&self) -> bool {
        self.task.as_ref().is_some_and(AbortHandle::is_finished)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(task) = &self.task else {
            return;
        };
        // A name without instances is not worth a connection to the registry.
        let is_wanted =
            self.services.strong_count() > 0 && !self.shared.snapshot.load().instances.is_empty();
        if self.shared.holders.leave(is_wanted) {
            task.abort();
        }
    }
}

/// What the one writer and the readers of a service share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) state: watch::Sender<State>,
    pub(super) holders: Holders,
    first_answer_by: Instant,
    observer: Observer,
}

/// What is known about the latest snapshot.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Its version, for those who wait for a change.
    pub(super) version: u64,
    /// Whether waiting for the first answer is over: there are instances, or every registry said that it has none.
    pub(super) is_decided: bool,
    /// Whether every registry said that it knows no such service, and none ever named an instance.
    pub(super) is_unknown: bool,
    /// When the registry in use last confirmed it.
    pub(super) confirmed_at: Option<Instant>,
    /// What its instances are worth.
    pub(super) using: Using,
    /// Without instances: why.
    pub(super) unresolved: ResolveError,
    /// When a registry that fails is asked again.
    pub(super) retry_at: Option<Instant>,
}

/// What the instances of a registry are worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Using {
    #[default]
    Answering,
    Failing,
    Expired,
    Empty {
        authoritative: bool,
    },
}

impl Shared {
    pub(super) fn new(
        snapshot: Snapshot,
        state: State,
        first_answer_by: Instant,
        observer: Observer,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            state: watch::Sender::new(state),
            holders: Holders::default(),
            first_answer_by,
            observer,
        }
    }

    fn refusal(&self, snapshot: &Snapshot) -> Rejected {
        let state = self.state.borrow();
        let reason = if state.unresolved.names_instances() {
            Reason::NoInstance
        } else {
            Reason::Unresolved
        };
        let rejected = Rejected::new("resolver", reason)
            .named(Arc::clone(&snapshot.service))
            .caused_by(state.unresolved.clone());
        match state.retry_at {
            Some(at) => rejected.retry_after(at.saturating_duration_since(clock::now())),
            None => rejected,
        }
    }
}
