use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::guard::Guard;
use super::instance::Instance;
use super::registry::{ErrorKind, Registry, RegistryError};
use super::resolver::Settings;
use super::unresolved::Said;
use super::watch::Using;
use crate::clock;

/// One registry of the chain, and what is known from it.
pub(super) struct Source {
    pub(super) registry: Arc<dyn Registry>,
    /// Its watch, if it is asked.
    pub(super) feed: Option<Feed>,
    asked_at: Instant,
    pub(super) guard: Guard,
    pub(super) answer: Option<Answer>,
    /// Until when what an earlier process knew may be used without an answer.
    recalled_until: Option<Instant>,
    /// Why it does not answer at the moment.
    pub(super) failure: Option<Failure>,
}

/// The last answer of a registry.
pub(super) struct Answer {
    confirmed_at: Instant,
    named: usize,
    authoritative: bool,
}

/// A failure that has not been followed by an answer.
pub(super) struct Failure {
    error: RegistryError,
    retry_at: Option<Instant>,
}

impl Source {
    pub(super) fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            feed: None,
            asked_at: clock::now(),
            guard: Guard::default(),
            answer: None,
            recalled_until: None,
            failure: None,
        }
    }

    /// Begins to ask for `service`, unless that is under way.
    pub(super) fn ask(&mut self, service: &Arc<str>, now: Instant) {
        if self.feed.is_none() {
            self.asked_at = now;
            let registry = Arc::clone(&self.registry);
            self.feed = Some(Feed::new(registry, Arc::clone(service)));
        }
    }

    /// Takes what an earlier process knew from here: until the first answer it is used, and then it is what the guard
    /// compares that answer with.
    pub(super) fn recall(&mut self, instances: &[Arc<Instance>], until: Option<Instant>) {
        self.guard.recall(instances);
        self.recalled_until = until;
    }

    pub(super) fn answered(&mut self, instances: Vec<Instance>, authoritative: bool, now: Instant) {
        self.answer = Some(Answer {
            confirmed_at: now,
            named: instances.len(),
            authoritative,
        });
        self.guard.answer(instances, authoritative, now);
    }

    pub(super) fn confirmed(&mut self, now: Instant) {
        if let Some(answer) = &mut self.answer {
            answer.confirmed_at = now;
        }
        self.guard.confirm(now);
    }

    pub(super) fn failed(&mut self, error: RegistryError, retry_at: Option<Instant>, now: Instant) {
        self.failure = Some(Failure { error, retry_at });
        self.guard.pause(now);
    }

    /// Whether there are instances from here that may be used.
    pub(super) fn serves(&self, settings: &Settings, now: Instant) -> bool {
        !self.guard.is_empty() && !self.has_expired(settings, now)
    }

    /// Until when its first answer is awaited, if it was asked a moment ago and has neither answered nor failed.
    pub(super) fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let is_silent = self.feed.is_some() && self.answer.is_none() && self.failure.is_none();
        let until = self.asked_at + GRACE;
        (is_silent && now < until).then_some(until)
    }

    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        self.awaited_until(now).is_some()
    }

    /// Whether it knows no such service, as it said last.
    pub(super) fn denies(&self) -> bool {
        let last = self.answer.as_ref();
        last.is_some_and(|answer| answer.named == 0)
    }

    /// Whether it answers that there is no instance.
    pub(super) fn says_none(&self) -> bool {
        self.is_answering() && self.guard.is_empty()
    }

    /// Whether what is known from here is what it says now.
    pub(super) fn is_answering(&self) -> bool {
        self.answer.is_some() && self.failure.is_none()
    }

    /// Whether waiting does not help: it has no instance, or has to be put right by people.
    pub(super) fn is_settled(&self) -> bool {
        let needs_people = |failure: &Failure| {
            use ErrorKind::{Denied, Malformed, Unsupported};
            matches!(failure.error.kind(), Denied | Malformed | Unsupported)
        };
        self.says_none() || self.failure.as_ref().is_some_and(needs_people)
    }

    /// When its instances become too old to use, if it goes on failing or never answers.
    pub(super) fn expiry(&self, settings: &Settings) -> Option<Instant> {
        if self.answer.is_none() {
            return self.recalled_until;
        }
        self.failure.as_ref()?;
        Some(clock::after(self.confirmed_at()?, settings.max_stale?))
    }

    fn has_expired(&self, settings: &Settings, now: Instant) -> bool {
        self.expiry(settings).is_some_and(|at| at <= now)
    }

    /// When its instances were last known to be right.
    pub(super) fn confirmed_at(&self) -> Option<Instant> {
        Some(self.answer.as_ref()?.confirmed_at)
    }

    /// When it is asked again after a failure.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failure.as_ref()?.retry_at
    }

    /// What its instances are worth.
    pub(super) fn using(&self, settings: &Settings, now: Instant) -> Using {
        let authoritative = self.answer.as_ref().is_some_and(|a| a.authoritative);
        if self.has_expired(settings, now) {
            Using::Expired
        } else if self.failure.is_some() {
            Using::Failing
        } else if self.guard.is_empty() {
            Using::Empty { authoritative }
        } else {
            Using::Answering
        }
    }

    /// What it said, where it has no instance.
    pub(super) fn said(&self) -> Said {
        match (&self.failure, &self.answer) {
            (Some(failure), _) => Said::Failed(failure.error.clone()),
            (None, Some(answer)) => Said::NoneUp(answer.named),
            (None, None) => Said::Nothing,
        }
    }
}

/// How long the first answer of a registry is awaited before the next one in the chain is asked as well.
const GRACE: Duration = Duration::from_secs(1);
