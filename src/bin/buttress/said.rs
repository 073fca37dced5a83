use std::sync::Arc;
use std::time::Instant;

use buttress::Instance;
use buttress::clock;
use buttress::observe::{Event, Observe};
use tokio::sync::watch;

/// What a registry said, in its own words.
#[derive(Clone, Default)]
pub(super) struct Said {
    pub(super) registry: Arc<str>,
    /// Its last answer, with those that a client may not call.
    pub(super) named: Option<Vec<Instance>>,
    /// Why it does not answer at the moment.
    pub(super) failure: Option<Failure>,
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) error: String,
    pub(super) since: Instant,
    /// When it is asked again, unless it says by itself when it can be.
    pub(super) retry_at: Option<Instant>,
}

/// Hears what a registry says. Clones share.
#[derive(Clone)]
pub(super) struct Ear(watch::Sender<Said>);

impl Ear {
    pub(super) fn new(registry: &str) -> Self {
        Self(watch::Sender::new(Said {
            registry: registry.into(),
            ..Said::default()
        }))
    }

    pub(super) fn said(&self) -> Said {
        self.0.borrow().clone()
    }

    /// To wait for more.
    pub(super) fn listen(&self) -> watch::Receiver<Said> {
        self.0.subscribe()
    }

    pub(super) fn answer(&self, named: Vec<Instance>) {
        self.0.send_modify(|said| said.named = Some(named));
    }
}

impl Observe for Ear {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::RegistryFailed { error, wait, .. } => self.0.send_modify(|said| {
                let now = clock::now();
                let before = said.failure.take();
                said.failure = Some(Failure {
                    error: (*error).to_owned(),
                    since: before.map_or(now, |failure| failure.since),
                    retry_at: (!wait.is_zero()).then(|| clock::after(now, *wait)),
                });
            }),
            Event::RegistryRecovered { .. } => self.0.send_modify(|said| said.failure = None),
            _ => {}
        }
    }
}
