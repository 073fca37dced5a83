//! What happened, told to whoever listens. See the [guide](crate::docs::observe).
//!
//! A layer or handle with an `observe` setting takes one [`Observe`]r; a tuple of two is one as well. It is called
//! after every lock is released, on the thread where the event happened, so it must not block. Nobody listening
//! costs a branch.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use buttress::observe::{Event, Observe};
//!
//! #[derive(Default)]
//! struct CountRefusals(AtomicUsize);
//!
//! impl Observe for CountRefusals {
//!     fn on_event(&self, event: &Event<'_>) {
//!         if let Event::Refused(_) = event {
//!             self.0.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//! }
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::algo::breaker::{Condition, State};
use crate::error::Rejected;

mod give_up;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;
mod who;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod words;

pub use self::give_up::GiveUp;
#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
#[cfg(feature = "tracing")]
pub use self::tracing::TracingObserver;
pub(crate) use self::who::Who;

/// Something that happened. Borrowed: keep what you need.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A layer refused a call or gave it up.
    Refused(&'a Rejected),
    /// A condition for opening a circuit breaker holds. It opens, or, if it only counts, would have; in that case this
    /// is told once for each condition until the state changes.
    Tripped {
        /// The breaker's name.
        breaker: &'a str,
        /// Which condition.
        condition: Condition,
    },
    /// A circuit breaker changed its state.
    StateChanged {
        /// The breaker's name.
        breaker: &'a str,
        /// The state it left.
        from: State,
        /// The state it is in.
        to: State,
    },
    /// A limit that finds itself is at another number of calls. It is told as well when it is first observed.
    LimitChanged {
        /// The limit's name.
        name: &'a str,
        /// How many calls may be under way at once by now.
        limit: usize,
    },
    /// A call is about to be tried again.
    Retrying {
        /// The policy's name.
        retry: &'a str,
        /// Which attempt comes: 2 for the first retry.
        attempt: u32,
        /// How long it waits first.
        wait: Duration,
    },
    /// A call that was to be tried again is not: its last result goes to the caller.
    GaveUp {
        /// The policy's name.
        retry: &'a str,
        /// How many attempts were made; one that a layer inside refused was not.
        attempts: u32,
        /// Why there are no more.
        reason: GiveUp,
    },
    /// A request is sent again, because its last attempt takes long or has failed.
    Hedging {
        /// The policy's name.
        hedge: &'a str,
        /// Which attempt this is: 2 for the first hedge.
        attempt: u32,
    },
    /// A hedge gave the answer, before the first attempt did or because that had failed.
    HedgeWon {
        /// The policy's name.
        hedge: &'a str,
        /// Which attempt it was: 2 for the first hedge.
        attempt: u32,
    },
    /// A caller shares the call of another, or joined another's batch, instead of making one.
    Coalesced {
        /// The layer's name.
        coalesce: &'a str,
    },
    /// A retry or a hedge was due, but the budget is spent.
    BudgetExhausted {
        /// The policy's name.
        retry: &'a str,
    },
    /// A fallback answered.
    FellBack {
        /// The fallback's name.
        fallback: &'a str,
    },
    /// A call was troubled on purpose.
    FaultInjected {
        /// The name of the chaos.
        chaos: &'a str,
        /// What it met: `latency`, `error`, `hang` or `cut`.
        fault: &'static str,
    },
    /// An instance is not called for a while, because it keeps failing.
    Ejected {
        /// The service.
        service: &'a str,
        /// The instance's id.
        instance: &'a str,
        /// For how long.
        wait: Duration,
    },
    /// An ejected instance passed its probe and is called again.
    Returned {
        /// The service.
        service: &'a str,
        /// The instance's id.
        instance: &'a str,
    },
    /// The instances of a service changed.
    InstancesChanged {
        /// The service.
        service: &'a str,
        /// How many there are, held ones included.
        instances: usize,
        /// How many of them the registry no longer names and the guard holds.
        held: usize,
    },
    /// A registry could not be asked, or gave an answer that cannot be used. The instances stay as they are.
    RegistryFailed {
        /// The registry.
        registry: &'a str,
        /// The service asked for.
        service: &'a str,
        /// What went wrong, without secrets.
        error: &'a str,
        /// How long until it is asked again; zero if it says by itself when it can be.
        wait: Duration,
    },
    /// A registry answers again.
    RegistryRecovered {
        /// The registry.
        registry: &'a str,
        /// The service asked for.
        service: &'a str,
    },
    /// What an earlier process knew was read from disk.
    SnapshotLoaded {
        /// The file.
        file: &'a str,
        /// How many services it has that are not too old.
        services: usize,
        /// How many instances they have together.
        instances: usize,
    },
    /// What an earlier process knew is not used: the file is damaged, from another version, another's, or unreadable.
    SnapshotRefused {
        /// The file.
        file: &'a str,
        /// What was expected and what was found, and what has become of the file.
        error: &'a str,
    },
    /// What is known could not be written to disk. It is tried again.
    SnapshotNotWritten {
        /// The file.
        file: &'a str,
        /// What went wrong.
        error: &'a str,
    },
    /// An instance was registered: for the first time, or again because the registry forgot it.
    Registered {
        /// The registry.
        registry: &'a str,
        /// The service.
        service: &'a str,
        /// The instance's id.
        instance: &'a str,
        /// Whether the registry had forgotten it.
        again: bool,
    },
    /// An instance was taken out of the registry.
    Deregistered {
        /// The registry.
        registry: &'a str,
        /// The service.
        service: &'a str,
        /// The instance's id.
        instance: &'a str,
    },
    /// The store of a shared limit could not be asked. Until it is back, calls go without it.
    StoreFailed {
        /// The store.
        store: &'a str,
        /// What went wrong, without secrets.
        error: &'a str,
        /// How long until it is tried again.
        wait: Duration,
    },
    /// The store of a shared limit is asked again.
    StoreRecovered {
        /// The store.
        store: &'a str,
    },
}

/// Listens to what happens.
pub trait Observe: Send + Sync + 'static {
    /// Called once for each event, outside every lock. Must not block. A panic is reported by the panic hook and
    /// otherwise without effect.
    fn on_event(&self, event: &Event<'_>);
}

impl<A: Observe, B: Observe> Observe for (A, B) {
    fn on_event(&self, event: &Event<'_>) {
        self.0.on_event(event);
        self.1.on_event(event);
    }
}

impl<O: Observe + ?Sized> Observe for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}

/// The listener of a layer or handle, or nobody.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Observe>>);

impl Observer {
    /// A listener that several handles can share.
    pub fn new(listener: impl Observe) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Tells the listener, if there is one. Its panic ends here: it must end neither a call nor a watch.
    pub fn emit(&self, event: &Event<'_>) {
        if let Some(listener) = &self.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| listener.on_event(event)));
        }
    }

    /// Whether there is a listener.
    pub(crate) fn is_somebody(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the listener of a refusal, and passes it on.
    pub(crate) fn refused(&self, rejected: Rejected) -> Rejected {
        self.emit(&Event::Refused(&rejected));
        rejected
    }
}

// A setting `observe(impl Into<Observer>)` takes a listener, or an `Observer` to share.
impl<O: Observe> From<O> for Observer {
    fn from(listener: O) -> Self {
        Self::new(listener)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Observer"
        } else {
            "nobody"
        })
    }
}
