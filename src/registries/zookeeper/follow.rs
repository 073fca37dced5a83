//! Following one service for as long as its session lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zookeeper_client::{Client, Error, SessionState, StateWatcher};

use super::ensemble::Ensemble;
use super::tree::Tree;
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{Instance, RegistryError, Updates};
use crate::rng::ThreadRng;

/// What is known of a service, and who is told of it.
pub(super) struct Follow {
    ensemble: Ensemble,
    session: Arc<Client>,
    state: StateWatcher,
    tree: Tree,
    updates: Updates,
    told: Option<Vec<Instance>>,
}

impl Follow {
    pub(super) fn new(
        ensemble: Ensemble,
        session: Arc<Client>,
        root: String,
        service: String,
        updates: Updates,
    ) -> Self {
        Self {
            tree: Tree::new(ensemble.clone(), Arc::clone(&session), root, service),
            ensemble,
            state: session.state_watcher(),
            session,
            updates,
            told: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, RegistryError> {
        // The server that answers may lag behind another one that has told of more before. What a session asks is answered
        // in that order, hence nothing has to wait until it has caught up.
        let mut began = clock::now();
        let synced = self.ensemble.ask(&self.session, self.session.sync("/"));
        let (synced, mut read) = tokio::join!(synced, self.tree.read());
        synced?.map_err(|error| self.ensemble.error(error))?;
        // Whether all of it was looked at, and not only what is said to have changed.
        let mut looked = true;
        loop {
            looked = match read {
                Ok(()) => {
                    self.tell(looked).await;
                    self.changed(began).await?
                }
                Err(error) => {
                    self.reconnect(error).await?;
                    true
                }
            };
            began = clock::now();
            read = self.tree.read().await;
        }
    }

    /// Waits until something has to be read again, the last time of which `began` then. True if that is all of it.
    async fn changed(&mut self, began: Instant) -> Result<bool, RegistryError> {
        let check = CHECK.mul_f64(0.9 + 0.2 * ThreadRng.unit());
        tokio::select! {
            biased;
            state = self.state.changed() => {
                if state != SessionState::SyncConnected {
                    let error = self.ensemble.error(Error::ConnectionLoss);
                    self.reconnect(error).await?;
                }
                Ok(true)
            }
            () = self.tree.changed() => {
                // Many that change at once are read at once.
                clock::until(clock::after(began, LEAST)).await;
                self.tree.settle();
                Ok(false)
            }
            () = clock::sleep(check) => {
                if let Err(error) = self.tree.check().await {
                    self.reconnect(error).await?;
                }
                Ok(true)
            }
        }
    }

    /// Tells of `error`, and waits until the session goes on, whose watches are then set again.
    async fn reconnect(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.state.peek_state() == SessionState::SyncConnected {
            return Err(error);
        }
        self.updates.failed(error).await;
        let limit = clock::after(clock::now(), 2 * self.session.session_timeout());
        while self.state.peek_state() == SessionState::Disconnected {
            tokio::select! {
                _ = self.state.changed() => {}
                () = clock::until(limit) => break,
            }
        }
        match self.state.peek_state() {
            SessionState::SyncConnected => self.tree.check().await,
            SessionState::AuthFailed => Err(self.ensemble.error(Error::AuthFailed)),
            _ => Err(self.ensemble.error(Error::SessionExpired)),
        }
    }

    /// Tells who is there if that is news. If all of it was looked at, that is a confirmation otherwise.
    async fn tell(&mut self, looked: bool) {
        let instances = self.tree.instances();
        if self.told.as_ref() != Some(&instances) {
            self.updates.instances(instances.clone()).await;
            self.told = Some(instances);
        } else if looked {
            self.updates.confirmed().await;
        }
    }
}

/// How often a watch that hears nothing looks whether it should have: two answers over 30 s are what the guard wants.
const CHECK: Duration = Duration::from_secs(15);
/// A deployment in full swing shows up fifty times a second at most: who called an instance that has just left would
/// notice a longer wait.
const LEAST: Duration = Duration::from_millis(20);
