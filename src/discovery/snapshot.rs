use std::sync::Arc;

use super::instance::Instance;

/// The instances of a service at one moment. Immutable: a change is another snapshot of a higher version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) service: Arc<str>,
    pub(super) version: u64,
    pub(super) instances: Arc<[Arc<Instance>]>,
    pub(super) held: usize,
}

impl Snapshot {
    /// A snapshot of a fixed list.
    pub fn fixed(
        service: impl Into<Arc<str>>,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Self {
        Self {
            service: service.into(),
            version: 1,
            instances: instances.into_iter().map(Arc::new).collect(),
            held: 0,
        }
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Grows with each change; 0 before the first answer.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The instances that may be called; those that are [held](Self::held) come last. An instance that did not change
    /// is the same `Arc` as in the snapshot before.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The instances that the registry names.
    pub fn live(&self) -> &[Arc<Instance>] {
        &self.instances[..self.instances.len() - self.held]
    }

    /// The instances that the registry no longer names, but whose loss is not yet confirmed.
    pub fn held(&self) -> &[Arc<Instance>] {
        &self.instances[self.instances.len() - self.held..]
    }
}
