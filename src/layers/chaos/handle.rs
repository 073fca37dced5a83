use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::hooks::{Always, Injected, Whole};
use super::layer::ChaosLayer;
use crate::algo::faults::{Fault, Faults};
use crate::algo::{Rng, Seeded};
use crate::observe::{Event, Observer};

/// Trouble on purpose: the handle that starts, changes and ends it. Clones share the faults and the draws.
#[derive(Clone)]
pub struct Chaos {
    shared: Arc<Shared>,
    observer: Observer,
}

struct Shared {
    name: Arc<str>,
    faults: ArcSwap<Faults>,
    /// What the next call's generator is seeded with.
    next_seed: AtomicU64,
}

impl Chaos {
    /// No trouble as yet; see [`set`](Self::set). The same seed troubles the same calls, counted in the order in which
    /// they are made.
    pub fn new(name: impl Into<Arc<str>>, seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                faults: ArcSwap::default(),
                // Drawn, so that neighbouring seeds do not trouble the same calls one apart.
                next_seed: AtomicU64::new(Seeded::new(seed).next_u64()),
            }),
            observer: Observer::default(),
        }
    }

    /// Tells `observer` of each call that meets a fault, so that trouble of one's own making can be told from the
    /// peer's.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        self.observer = observer.into();
        self
    }

    /// A layer that troubles the calls of a service. All layers of a handle share its faults.
    pub fn layer(&self) -> ChaosLayer<Always, Injected, Whole> {
        ChaosLayer::new(self.clone())
    }

    /// Puts these faults in force, for the calls that are made from now on. Those under way keep what they met: one
    /// that hangs goes on hanging.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.store(Arc::new(faults));
    }

    /// Ends the trouble: no faults.
    pub fn stop(&self) {
        self.set(Faults::new());
    }

    /// The faults in force.
    pub fn faults(&self) -> Arc<Faults> {
        self.shared.faults.load_full()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What the next call meets.
    pub(super) fn draw(&self) -> (Option<Duration>, Option<Fault>) {
        let faults = self.shared.faults.load();
        if faults.is_none() {
            return (None, None);
        }
        // A generator for each call, so that calls made at once take nothing from each other's draws. Relaxed: the
        // number guards nothing but itself.
        let seed = self.shared.next_seed.fetch_add(1, Ordering::Relaxed);
        faults.draw(&mut Seeded::new(seed))
    }

    pub(super) fn tell(&self, fault: &'static str) {
        self.observer.emit(&Event::FaultInjected {
            chaos: &self.shared.name,
            fault,
        });
    }
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos")
            .field("name", &self.shared.name)
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}
