use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::feed::{Feed, Heard};
use super::guard::Guard;
use super::instance::Instance;
use super::registry::{Registry, RegistryError, Update};
use super::resolver::Settings;
use super::snapshot::Snapshot;
use super::unresolved::{ResolveError, Said};
use super::watch::{Shared, Source as Using, State};
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
    shared: Arc<Shared>,
    chain: Vec<Source>,
}

/// One registry of the chain, and what is known from it.
struct Source {
    registry: Arc<dyn Registry>,
    feed: Option<Feed>,
    asked_at: Instant,
    guard: Guard,
    answer: Option<Answer>,
    failure: Option<Failure>,
}

struct Answer {
    confirmed_at: Instant,
    named: usize,
    authoritative: bool,
}

struct Failure {
    error: RegistryError,
    retry_at: Option<Instant>,
}

impl Service {
    pub(super) fn new(name: Arc<str>, settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        let registries = settings.registries.iter().cloned();
        Self {
            name,
            chain: registries.map(Source::new).collect(),
            settings,
            shared,
        }
    }

    pub(super) async fn run(mut self) {
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

    /// Begins the watches that are wanted and ends the others.
    fn ask(&mut self, now: Instant) {
        let mut wanted = true;
        for source in &mut self.chain {
            if !wanted {
                if source.feed.is_some() {
                    *source = Source::new(Arc::clone(&source.registry));
                }
                continue;
            }
            if source.feed.is_none() {
                source.asked_at = now;
                source.feed = Some(Feed::new(
                    Arc::clone(&source.registry),
                    Arc::clone(&self.name),
                ));
            }
            wanted = !source.serves(&self.settings, now) && !source.is_awaited(now);
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
        let (error, wait) = match heard {
            Heard::Update(Update::Instances {
                instances,
                authoritative,
            }) => {
                source.answer = Some(Answer {
                    confirmed_at: now,
                    named: instances.len(),
                    authoritative,
                });
                source.guard.answer(instances, authoritative, now);
                return self.recovered(index);
            }
            Heard::Update(Update::Confirmed) => {
                // Without an answer before it there is nothing that could be confirmed.
                let Some(answer) = &mut source.answer else {
                    return;
                };
                answer.confirmed_at = now;
                source.guard.confirm(now);
                return self.recovered(index);
            }
            Heard::Update(Update::Failed(error)) => (error, None),
            Heard::Ended { error, wait } => (error, Some(wait)),
        };
        source.guard.pause(now);
        self.settings.observer.emit(&Event::RegistryFailed {
            registry: source.registry.name(),
            service: &self.name,
            error: &error.message(),
            wait: wait.unwrap_or_default(),
        });
        source.failure = Some(Failure {
            error,
            retry_at: wait.map(|wait| now + wait),
        });
    }

    fn recovered(&mut self, index: usize) {
        let source = &mut self.chain[index];
        if source.failure.take().is_some() {
            self.settings.observer.emit(&Event::RegistryRecovered {
                registry: source.registry.name(),
                service: &self.name,
            });
        }
    }

    fn publish(&self, now: Instant) {
        let serving = self
            .chain
            .iter()
            .find(|source| source.serves(&self.settings, now));
        let previous = self.shared.snapshot.load_full();
        let awaited = self.chain.iter().any(|source| source.is_awaited(now));
        if serving.is_none() && awaited && !previous.instances.is_empty() {
            // The next of the chain has just been asked: its answer replaces the set, rather than nothing.
            return;
        }

        let answered = || self.chain.iter().find(|source| source.answer.is_some());
        let used = serving.or_else(answered);
        let snapshot = match used {
            Some(_) => self.snapshot(serving, &previous),
            None => None,
        };
        let version = snapshot.as_ref().map_or(previous.version, |s| s.version);
        let held = snapshot.as_ref().map_or(0, |s| s.held);
        let count = snapshot.as_ref().map_or(0, |s| s.instances.len());
        let has_changed = snapshot.is_some() && (previous.version > 0 || count > 0);
        if let Some(snapshot) = snapshot {
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        self.shared.state.send_replace(State {
            version,
            is_decided: serving.is_some() || self.chain.iter().all(Source::says_none),
            confirmed_at: used.and_then(|source| Some(source.answer.as_ref()?.confirmed_at)),
            source: used.map_or(Using::Answering, |source| source.using(&self.settings, now)),
            unresolved: match serving {
                Some(_) => ResolveError::default(),
                None => self.unresolved(),
            },
            retry_at: match serving {
                Some(_) => None,
                None => self.chain.iter().filter_map(Source::retry_at).min(),
            },
        });
        if has_changed {
            self.settings.observer.emit(&Event::InstancesChanged {
                service: &self.name,
                instances: count,
                held,
            });
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
            let awaited = source.is_awaited(now).then(|| source.asked_at + GRACE);
            let expiry = source.expiry(&self.settings).filter(|&at| at > now);
            [source.guard.due(), awaited, expiry]
        });
        due.flatten().min()
    }
}

impl Source {
    fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            feed: None,
            asked_at: clock::now(),
            guard: Guard::default(),
            answer: None,
            failure: None,
        }
    }

    /// Whether there are instances from here that may be used.
    fn serves(&self, settings: &Settings, now: Instant) -> bool {
        !self.guard.is_empty() && !self.has_expired(settings, now)
    }

    /// Whether it was asked a moment ago and has neither answered nor failed.
    fn is_awaited(&self, now: Instant) -> bool {
        let is_silent = self.answer.is_none() && self.failure.is_none();
        self.feed.is_some() && is_silent && now < self.asked_at + GRACE
    }

    /// Whether it answers that there is no instance.
    fn says_none(&self) -> bool {
        self.answer.is_some() && self.failure.is_none() && self.guard.is_empty()
    }

    /// When its instances become too old to use, if it goes on failing.
    fn expiry(&self, settings: &Settings) -> Option<Instant> {
        self.failure.as_ref()?;
        let confirmed_at = self.answer.as_ref()?.confirmed_at;
        Some(clock::after(confirmed_at, settings.max_stale?))
    }

    fn has_expired(&self, settings: &Settings, now: Instant) -> bool {
        self.expiry(settings).is_some_and(|at| at <= now)
    }

    fn retry_at(&self) -> Option<Instant> {
        self.failure.as_ref()?.retry_at
    }

    fn using(&self, settings: &Settings, now: Instant) -> Using {
        let authoritative = self.answer.as_ref().is_some_and(|a| a.authoritative);
        if self.has_expired(settings, now) {
            Using::Expired
        } else if self.guard.is_empty() {
            Using::Empty { authoritative }
        } else if self.failure.is_some() {
            Using::Failing
        } else {
            Using::Answering
        }
    }

    fn said(&self) -> Said {
        match (&self.failure, &self.answer) {
            (Some(failure), _) => Said::Failed(failure.error.clone()),
            (None, Some(answer)) => Said::NoneUp(answer.named),
            (None, None) => Said::Nothing,
        }
    }
}

/// How long the first answer of a registry is awaited before the next one in the chain is asked as well.
const GRACE: Duration = Duration::from_secs(1);
