use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::disk::Store;
use super::feed::Heard;
use super::instance::Instance;
use super::registry::{RegistryError, Update};
use super::resolver::Settings;
use super::snapshot::Snapshot;
use super::source::Source;
use super::unresolved::ResolveError;
use super::watch::{Shared, State, Using};
use crate::clock;
use crate::observe::Event;

/// The one writer of a service's snapshots.
///
/// The registries form a chain. One is asked as soon as those before it have all said that they have no instance, or
/// failed without ever naming one, or let a moment pass in silence. The first one that has instances is used, and keeps
/// being used through its outages; those after it are then asked no more.
pub(super) struct Service {
    name: Arc<str>,
    settings: Arc<Settings>,
    store: Option<Arc<Store>>,
    shared: Arc<Shared>,
    chain: Vec<Source>,
    /// Whether a registry ever named an instance: it stays a service when the last of them goes.
    is_known: bool,
}

impl Service {
    pub(super) fn new(
        name: Arc<str>,
        settings: Arc<Settings>,
        store: Option<Arc<Store>>,
        shared: Arc<Shared>,
    ) -> Self {
        let registries = settings.registries.iter().cloned();
        Self {
            name,
            chain: registries.map(Source::new).collect(),
            settings,
            store,
            shared,
            is_known: false,
        }
    }

    /// Writes until nobody has held the service for a while.
    pub(super) async fn run(self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = shared.holders.abandoned() => {}
            never = self.write() => match never {},
        }
    }

    async fn write(mut self) -> Infallible {
        // In a box: it is over at once, and its place would be kept for ever.
        Box::pin(self.recall()).await;
        loop {
            let now = clock::now();
            for source in &mut self.chain {
                source.guard.release(now);
            }
            self.ask(now);
            self.publish(now);
            let wake = self.wake(now);
            tokio::select! {
                biased;
                (index, heard) = std::future::poll_fn(|cx| self.poll_heard(cx)) => {
                    self.hear(index, heard, clock::now());
                }
                () = clock::until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// Begins with what an earlier process knew, as if the registry that told it had told this one.
    async fn recall(&mut self) {
        let Some(store) = &self.store else {
            return;
        };
        let Some((remembered, age)) = store.recall(&self.name).await else {
            return;
        };
        let limit = self
            .settings
            .max_stale
            .map(|limit| limit.saturating_sub(age));
        let until = limit.map(|left| clock::after(clock::now(), left));
        let position = remembered.position.min(self.chain.len() - 1);
        self.chain[position].recall(&remembered.instances, until);
        self.is_known = true;
    }

    /// Begins the watches that are wanted and ends the others.
    fn ask(&mut self, now: Instant) {
        let (mut wanted, mut served) = (true, false);
        for source in &mut self.chain {
            if !wanted {
                // One that only waits for its turn keeps what it knows from before.
                if source.feed.is_some() || (served && !source.guard.is_empty()) {
                    *source = Source::new(Arc::clone(&source.registry));
                }
                continue;
            }
            source.ask(&self.name, now);
            served = source.serves(&self.settings, now);
            wanted = !served && !source.is_awaited(now);
        }
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Heard)> {
        for (index, source) in self.chain.iter_mut().enumerate() {
            if let Some(feed) = &mut source.feed {
                if let Poll::Ready(heard) = feed.poll_heard(cx) {
                    return Poll::Ready((index, heard));
                }
            }
        }
        Poll::Pending
    }

    fn hear(&mut self, index: usize, heard: Heard, now: Instant) {
        let source = &mut self.chain[index];
        match heard {
            Heard::Update(Update::Instances {
                instances,
                authoritative,
            }) => {
                self.is_known |= !instances.is_empty();
                source.answered(instances, authoritative, now);
            }
            Heard::Update(Update::Confirmed) => source.confirmed(now),
            Heard::Update(Update::Failed(error)) => return self.failed(index, error, None, now),
            Heard::Ended { error, wait } => return self.failed(index, error, Some(wait), now),
        }
        if source.failure.take().is_some() {
            self.settings.observer.emit(&Event::RegistryRecovered {
                registry: source.registry.name(),
                service: &self.name,
            });
        }
    }

    fn failed(&mut self, index: usize, error: RegistryError, wait: Option<Duration>, now: Instant) {
        let source = &mut self.chain[index];
        self.settings.observer.emit(&Event::RegistryFailed {
            registry: source.registry.name(),
            service: &self.name,
            error: &error.message(),
            wait: wait.unwrap_or_default(),
        });
        source.failed(error, wait.map(|wait| now + wait), now);
    }

    fn publish(&self, now: Instant) {
        let mut chain = self.chain.iter();
        let position = chain.position(|source| source.serves(&self.settings, now));
        let serving = position.map(|position| &self.chain[position]);
        // One that has just been asked may know more than nothing: that is not told before it had its moment.
        let is_open = serving.is_none() && self.chain.iter().any(|source| source.is_awaited(now));
        let previous = self.shared.snapshot.load_full();
        if is_open && !previous.instances.is_empty() {
            return;
        }

        let used = serving.or_else(|| self.chain.iter().find(|source| source.answer.is_some()));
        // Something was told, or is no longer so: what an earlier process knew can become too old.
        let is_told = used.is_some() || previous.version > 0;
        let snapshot = match is_told && !is_open {
            true => self.snapshot(serving, &previous),
            false => None,
        };
        let snapshot = snapshot.map(Arc::new);
        self.remember(position, &snapshot.as_ref().unwrap_or(&previous).instances);
        if let Some(snapshot) = &snapshot {
            self.shared.snapshot.store(Arc::clone(snapshot));
        }
        self.shared.state.send_replace(State {
            version: snapshot.as_ref().unwrap_or(&previous).version,
            is_decided: serving.is_some() || self.chain.iter().all(Source::is_settled),
            is_unknown: !self.is_known && self.chain.iter().all(Source::denies),
            confirmed_at: used.and_then(Source::confirmed_at),
            using: used.map_or(Using::Answering, |used| used.using(&self.settings, now)),
            unresolved: match serving {
                Some(_) => ResolveError::default(),
                None => self.unresolved(),
            },
            retry_at: self.chain.iter().filter_map(Source::retry_at).min(),
        });
        if let Some(snapshot) = snapshot {
            self.settings.observer.emit(&Event::InstancesChanged {
                service: &self.name,
                instances: snapshot.instances.len(),
                held: snapshot.held,
            });
        }
    }

    /// Hands on what is known, and known to be right, for the next process.
    fn remember(&self, position: Option<usize>, instances: &Arc<[Arc<Instance>]>) {
        let Some(store) = &self.store else {
            return;
        };
        match position {
            Some(position) if self.chain[position].is_answering() => {
                store.keep(&self.name, position, instances);
            }
            None if self.chain.iter().all(Source::says_none) => store.forget(&self.name),
            _ => {}
        }
    }

    /// The instances of `serving` as the snapshot after `previous`, unless they are the same.
    fn snapshot(&self, serving: Option<&Source>, previous: &Snapshot) -> Option<Snapshot> {
        let known: HashMap<&str, &Arc<Instance>> = previous
            .instances
            .iter()
            .map(|instance| (instance.id.as_str(), instance))
            .collect();
        let keep = |instance: &Arc<Instance>| match known.get(instance.id.as_str()) {
            Some(known) if *known == instance => Arc::clone(known),
            _ => Arc::clone(instance),
        };
        let guard = serving.map(|source| &source.guard);
        let live = guard.iter().flat_map(|guard| guard.live());
        let held = guard.iter().flat_map(|guard| guard.held());
        let instances: Arc<[_]> = live.chain(held).map(keep).collect();
        let held = guard.map_or(0, |guard| guard.held().count());
        if previous.version > 0 && previous.instances == instances && previous.held == held {
            return None;
        }
        Some(Snapshot {
            service: Arc::clone(&self.name),
            version: previous.version + 1,
            instances,
            held,
        })
    }

    fn unresolved(&self) -> ResolveError {
        let asked = self.chain.iter().filter(|source| source.feed.is_some());
        let said = asked.map(|source| (Arc::from(source.registry.name()), source.said()));
        ResolveError {
            said: said.collect(),
        }
    }

    /// When there is something to do, even if nothing is heard.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let asked = self.chain.iter().filter(|source| source.feed.is_some());
        let due = asked.flat_map(|source| {
            let expiry = source.expiry(&self.settings).filter(|&at| at > now);
            [source.guard.due(), source.awaited_until(now), expiry]
        });
        due.flatten().min()
    }
}
