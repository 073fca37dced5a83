use std::sync::Arc;

use buttress::Registry;
use buttress::discovery::{BoxFuture, RegistryError, Update, Updates};

use super::said::Ear;

/// A registry whose answers are overheard: a client does not see the instances that it may not call.
pub(super) struct Tap {
    registry: Arc<dyn Registry>,
    ear: Ear,
}

impl Tap {
    pub(super) fn new(registry: Arc<dyn Registry>, ear: Ear) -> Self {
        Self { registry, ear }
    }
}

impl Registry for Tap {
    fn name(&self) -> &str {
        self.registry.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (overheard, mut heard) = Updates::channel();
        let mut watch = self.registry.watch(service, overheard);
        let ear = self.ear.clone();
        let pass = async move |update: Update| {
            if let Update::Instances { instances, .. } = &update {
                ear.answer(instances.clone());
            }
            updates.send(update).await;
        };
        Box::pin(async move {
            let error = loop {
                tokio::select! {
                    biased;
                    Some(update) = heard.recv() => pass(update).await,
                    error = &mut watch => break error,
                }
            };
            while let Ok(update) = heard.try_recv() {
                pass(update).await;
            }
            error
        })
    }
}
