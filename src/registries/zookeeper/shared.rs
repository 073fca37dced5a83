use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use zookeeper_client::Client;

use super::ensemble::Ensemble;
use crate::clock;
use crate::discovery::RegistryError;

/// A session that is opened when it is needed first, lasts while somebody holds it, and is opened again after its end.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Weak<Client>,
    failed: Option<(Instant, RegistryError)>,
}

impl Shared {
    pub(super) async fn session(&self, ensemble: &Ensemble) -> Result<Arc<Client>, RegistryError> {
        let asked = clock::now();
        let mut state = self.state.lock().await;
        let session = state.session.upgrade();
        if let Some(session) = session.filter(|session| !session.state().is_terminated()) {
            return Ok(session);
        }
        // Whoever waited for somebody else's attempt does not begin another.
        match &state.failed {
            Some((at, error)) if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        match ensemble.open(SESSION).await {
            Ok(session) => {
                let session = Arc::new(session);
                state.session = Arc::downgrade(&session);
                Ok(session)
            }
            Err(error) => {
                state.failed = Some((clock::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// How long the session for watches lasts without a word to a server.
const SESSION: Duration = Duration::from_secs(10);
