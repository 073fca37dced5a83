use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::instance::{Instance, InstanceKey};
use super::registry::BoxFuture;
use super::snapshot::Snapshot;
use super::watch::Watch;

/// The snapshots of a service as they come, each with the difference from the one that this reader saw before.
///
/// A reader that is slow misses what lies between, and not what came of it: it gets the latest snapshot, and all that
/// changed since its own. Nothing is queued for it. As a stream it does not end. See [`Watch::changes`].
pub struct Changes {
    watch: Watch,
    seen: Arc<Snapshot>,
    next: Option<BoxFuture<'static, Arc<Snapshot>>>,
}

/// A snapshot, and what is different in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// The latest snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Instances whose [key](Instance::key) was not there before.
    pub added: Vec<Arc<Instance>>,
    /// Instances that are the same as before by their key, and of which something else changed, as they are now.
    pub updated: Vec<Arc<Instance>>,
    /// Instances whose key is no longer there. Those that are [held](Snapshot::held) are.
    pub removed: Vec<Arc<Instance>>,
}

impl Changes {
    pub(super) fn new(watch: Watch) -> Self {
        let mut nothing = Snapshot::fixed(watch.snapshot().service(), []);
        nothing.version = 0;
        Self {
            watch,
            seen: Arc::new(nothing),
            next: None,
        }
    }

    /// Waits for a snapshot that is newer than the last one given here. Nothing is lost if it is dropped.
    pub async fn changed(&mut self) -> Change {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// As [`changed`](Self::changed), to be polled.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        let next = self.next.get_or_insert_with(|| {
            let (watch, seen) = (self.watch.clone(), self.seen.version());
            Box::pin(async move { watch.changed(seen).await })
        });
        let snapshot = ready!(next.as_mut().poll(cx));
        self.next = None;
        let seen = std::mem::replace(&mut self.seen, Arc::clone(&snapshot));
        Poll::Ready(Change::between(&seen, snapshot))
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.get_mut().poll_changed(cx).map(Some)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("service", &self.seen.service())
            .field("seen", &self.seen.version())
            .finish_non_exhaustive()
    }
}

impl Change {
    fn between(before: &Snapshot, snapshot: Arc<Snapshot>) -> Self {
        let before = before.instances().iter();
        let mut before: HashMap<InstanceKey, &Arc<Instance>> =
            before.map(|instance| (instance.key(), instance)).collect();
        let (mut added, mut updated) = (Vec::new(), Vec::new());
        for instance in snapshot.instances() {
            match before.remove(&instance.key()) {
                None => added.push(Arc::clone(instance)),
                Some(same) if same == instance => {}
                Some(_) => updated.push(Arc::clone(instance)),
            }
        }
        Self {
            added,
            updated,
            removed: before.into_values().cloned().collect(),
            snapshot,
        }
    }
}
