//! The registry in memory, each row with its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buttress::discovery::{Instance, Registry, Update, Updates};
use buttress::registries::memory::Memory;

use super::Fault;

pub struct Row {
    memory: Memory,
    is_down: AtomicBool,
}

impl super::Row for Row {
    type Registry = Memory;
    const NAME: &str = "memory";

    async fn start() -> Option<Self> {
        Some(Self {
            memory: Memory::new(),
            is_down: AtomicBool::new(false),
        })
    }

    fn registry(&self) -> Memory {
        self.memory.clone()
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.is_down.store(fault == Fault::Cut, Ordering::SeqCst);
        self.memory.set_down(fault == Fault::Cut);
        matches!(fault, Fault::None | Fault::Cut)
    }

    async fn write(&self, service: &str, instance: &Instance) {
        // It is down for its readers, not for us.
        self.memory.set_down(false);
        let ttl = Duration::from_secs(3600);
        self.memory.register(service, instance, ttl).await.unwrap();
        self.memory.set_down(self.is_down.load(Ordering::SeqCst));
    }

    async fn remove(&self, service: &str, id: &str) {
        let instance = Instance::new(id, "", 0);
        self.memory.deregister(service, &instance).await.unwrap();
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let (updates, mut told) = Updates::channel();
        tokio::spawn(self.memory.watch(service, updates));
        let Some(Update::Instances { instances, .. }) = told.recv().await else {
            panic!("no answer");
        };
        instances
            .into_iter()
            .map(|one| (one.id, one.weight))
            .collect()
    }

    async fn forget(&self, _: &str) {
        self.memory.clear();
    }
}
