use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::registry::{BoxFuture, ErrorKind, Registry, RegistryError, Update, Updates};
use crate::clock::{self, Sleep};
use crate::rng::ThreadRng;

/// What one registry says of one service, for ever: a watch that ends is begun again. Dropping it ends the watch.
pub(super) struct Feed {
    registry: Arc<dyn Registry>,
    service: Arc<str>,
    backoff: Backoff,
    stage: Stage,
}

enum Stage {
    Watching {
        watch: BoxFuture<'static, RegistryError>,
        updates: mpsc::Receiver<Update>,
    },
    /// The watch has ended, but not all that it sent is heard.
    Ended {
        error: RegistryError,
        updates: mpsc::Receiver<Update>,
    },
    Waiting(Pin<Box<Sleep>>),
}

/// What came from a registry.
pub(super) enum Heard {
    /// It said something.
    Update(Update),
    /// The watch ended; another begins after the wait.
    Ended {
        error: RegistryError,
        wait: Duration,
    },
}

impl Feed {
    pub(super) fn new(registry: Arc<dyn Registry>, service: Arc<str>) -> Self {
        Self {
            stage: Stage::watching(&registry, &service),
            registry,
            service,
            backoff: Backoff::new(),
        }
    }

    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            match &mut self.stage {
                Stage::Watching { watch, updates } => {
                    // First: what was sent before the watch ends is heard before.
                    if let Poll::Ready(Some(update)) = updates.poll_recv(cx) {
                        return Poll::Ready(self.hear(update));
                    }
                    let error = ready!(watch.as_mut().poll(cx));
                    let (_, closed) = mpsc::channel(1);
                    let updates = std::mem::replace(updates, closed);
                    self.stage = Stage::Ended { error, updates };
                }
                Stage::Ended { error, updates } => {
                    if let Ok(update) = updates.try_recv() {
                        return Poll::Ready(self.hear(update));
                    }
                    let error = error.clone();
                    let wait = self.backoff.next(&mut ThreadRng);
                    self.stage = Stage::Waiting(Box::pin(clock::sleep(wait)));
                    return Poll::Ready(Heard::Ended { error, wait });
                }
                Stage::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    self.stage = Stage::watching(&self.registry, &self.service);
                }
            }
        }
    }

    fn hear(&mut self, update: Update) -> Heard {
        if !matches!(update, Update::Failed(_)) {
            self.backoff = Backoff::new();
        }
        Heard::Update(update)
    }
}

impl Stage {
    fn watching(registry: &Arc<dyn Registry>, service: &Arc<str>) -> Self {
        let (sender, updates) = Updates::channel();
        let watch = watch(Arc::clone(registry), Arc::clone(service), sender);
        Self::Watching { watch, updates }
    }
}

/// A watch whose panic is an error, so that it is begun again like any other that ends.
fn watch(
    registry: Arc<dyn Registry>,
    service: Arc<str>,
    updates: Updates,
) -> BoxFuture<'static, RegistryError> {
    let name = registry.name().to_owned();
    let mut watch: BoxFuture<'static, RegistryError> =
        Box::pin(async move { registry.watch(&service, updates).await });
    Box::pin(std::future::poll_fn(move |cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| watch.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            let error = RegistryError::new(name.as_str(), ErrorKind::Failed, "the watch panicked");
            Poll::Ready(error)
        })
    }))
}
