//! Following one service for as long as there is a folder for the file.

use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{File, named};
use crate::clock;
use crate::discovery::{ErrorKind, RegistryError, Update, Updates};

impl File {
    pub(super) async fn follow(&self, service: &str, updates: &Updates) -> RegistryError {
        let (changed, mut changes) = mpsc::channel(1);
        let notify = notify::recommended_watcher(move |event: notify::Result<_>| {
            if event.is_ok_and(|event| !may_change(&event)) {
                return;
            }
            // A full channel says already that there is something to read.
            let _ = changed.try_send(());
        });
        // The folder, because a file that is replaced by another is not the one that was watched.
        let watcher = notify.and_then(|mut watcher| {
            watcher.watch(self.folder(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let _watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                return self.failed("cannot be watched", ErrorKind::Unreachable, error);
            }
        };

        let mut told = None;
        let mut registered = false;
        loop {
            let read = self.blocking(Self::read).await;
            let heard = read.map(|mut services| {
                named(&mut services, service)
                    .map(std::mem::take)
                    .unwrap_or_default()
            });
            if told.as_ref() != Some(&heard) {
                match heard.clone() {
                    Ok(entries) => {
                        registered |= entries.iter().any(|entry| entry.registered);
                        let instances = entries.into_iter().map(|entry| entry.instance);
                        updates
                            .send(Update::Instances {
                                instances: instances.collect(),
                                authoritative: !registered,
                            })
                            .await;
                    }
                    Err(error) => {
                        if let Some(Ok(_)) = told {
                            updates.confirmed().await;
                        }
                        // Nothing is heard of a folder that is gone, even when there is one again.
                        if !self.folder().exists() {
                            return error;
                        }
                        updates.failed(error).await;
                    }
                }
                told = Some(heard);
            }
            if changes.recv().await.is_none() {
                return RegistryError::new(
                    self.name.clone(),
                    ErrorKind::Failed,
                    "the watch of its folder ended",
                );
            }
            // One change is several events; a file that is written in place is empty at first.
            clock::sleep(SETTLE).await;
        }
    }
}

/// Whether `event` can have changed what the file says. Reading it is an event too.
fn may_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

const SETTLE: Duration = Duration::from_millis(50);
