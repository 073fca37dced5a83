use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::registry::{BoxFuture, ErrorKind, Registry, RegistryError, Update, Updates};
use crate::clock;
use crate::rng::ThreadRng;

/// What one registry says of one service, for ever: a watch that ends is begun again. Dropping it ends the watch.
pub(super) struct Feed {
    run: BoxFuture<'static, ()>,
    heard: mpsc::Receiver<Heard>,
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
        let (sender, heard) = mpsc::channel(1);
        Self {
            run: Box::pin(run(registry, service, sender)),
            heard,
        }
    }

    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        // It never ends; what it sends is what counts.
        let _ = self.run.as_mut().poll(cx);
        match self.heard.poll_recv(cx) {
            Poll::Ready(Some(heard)) => Poll::Ready(heard),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

async fn run(registry: Arc<dyn Registry>, service: Arc<str>, heard: mpsc::Sender<Heard>) {
    let mut backoff = Backoff::new();
    // The receiver is beside this future: sending cannot fail.
    loop {
        let (updates, mut receiver) = Updates::channel();
        let mut watch = watch(Arc::clone(&registry), Arc::clone(&service), updates);
        let mut has_answered = false;
        let error = loop {
            // Biased: what was sent before the watch ended is heard first.
            tokio::select! {
                biased;
                Some(update) = receiver.recv() => {
                    has_answered |= !matches!(update, Update::Failed(_));
                    let _ = heard.send(Heard::Update(update)).await;
                }
                error = &mut watch => break error,
            }
        };
        while let Ok(update) = receiver.try_recv() {
            has_answered |= !matches!(update, Update::Failed(_));
            let _ = heard.send(Heard::Update(update)).await;
        }
        if has_answered {
            backoff = Backoff::new();
        }
        let wait = backoff.next(&mut ThreadRng);
        let _ = heard.send(Heard::Ended { error, wait }).await;
        clock::sleep(wait).await;
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
