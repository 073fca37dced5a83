use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::instance::Instance;
use super::snapshot::Snapshot;

/// A service's instances, as they are now and as they change. A cheap clone shares.
#[derive(Clone, Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// The version of the latest snapshot, for those who wait for a change.
    version: watch::Sender<u64>,
}

impl Watch {
    /// A list that never changes, without a registry.
    pub fn fixed(
        service: impl Into<Arc<str>>,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Self {
        let snapshot = Snapshot::fixed(service, instances);
        Self {
            shared: Arc::new(Shared {
                version: watch::Sender::new(snapshot.version()),
                snapshot: ArcSwap::from_pointee(snapshot),
            }),
        }
    }

    /// The latest snapshot. Takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Waits for a snapshot of a version above `seen`.
    pub async fn changed(&self, seen: u64) -> Arc<Snapshot> {
        let mut version = self.shared.version.subscribe();
        // The sender is in `self`, so that the wait cannot fail.
        let _ = version.wait_for(|&version| version > seen).await;
        self.snapshot()
    }
}
