use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// What is known by service name, read without a lock and bounded: the entry that was unused for longest makes place.
///
/// Names come from outside, and each is watched in the registries, which allow a client only so many connections. So
/// of the names that are no services few are kept. An entry that a call or a handle holds stays, so that nobody steers
/// what is no longer called.
#[derive(Debug)]
pub(super) struct Services<V> {
    entries: ArcSwap<Entries<V>>,
    /// Held while an entry is added, so that no service gets two.
    adding: Mutex<()>,
    /// Counts additions: a cheap clock for who was used when.
    generation: AtomicU64,
}

/// What is asked about an entry.
pub(super) trait Known {
    /// Whether it can no longer be used, so that another takes its place.
    fn has_ended(&self) -> bool;

    /// Whether no registry knows the service.
    fn is_unknown(&self) -> bool;
}

type Entries<V> = HashMap<Box<str>, Arc<Entry<V>>>;

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    used: AtomicU64,
}

impl<V: Known> Services<V> {
    pub(super) fn find_or_insert(&self, name: &str, new: impl FnOnce() -> V) -> Arc<V> {
        if let Some(value) = self.find(name) {
            return value;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added it while this one waited.
        if let Some(value) = self.find(name) {
            return value;
        }
        let value = Arc::new(new());
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let mut entries = HashMap::clone(&self.entries.load());
        evict(&mut entries, MOST_UNKNOWN, V::is_unknown);
        evict(&mut entries, MOST_SERVICES, |_| true);
        let entry = Entry {
            value: value.clone(),
            used: AtomicU64::new(generation),
        };
        entries.insert(name.into(), Arc::new(entry));
        self.entries.store(Arc::new(entries));
        value
    }

    fn find(&self, name: &str) -> Option<Arc<V>> {
        let entries = self.entries.load();
        let entry = entries.get(name)?;
        if entry.value.has_ended() {
            return None;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        // Written only when it changes: readers of one service share its line.
        if entry.used.load(Ordering::Relaxed) != generation {
            entry.used.store(generation, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }
}

impl<V> Default for Services<V> {
    fn default() -> Self {
        Self {
            entries: ArcSwap::default(),
            adding: Mutex::default(),
            generation: AtomicU64::default(),
        }
    }
}

/// Makes place for another where there are `most` of a kind: the one goes that was unused for longest.
fn evict<V>(entries: &mut Entries<V>, most: usize, is_of_kind: impl Fn(&V) -> bool) {
    let of_kind = || {
        let entries = entries.iter();
        entries.filter(|(_, entry)| is_of_kind(&entry.value))
    };
    if of_kind().count() < most {
        return;
    }
    let oldest = of_kind()
        .filter(|(_, entry)| Arc::strong_count(&entry.value) == 1)
        .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
        .map(|(name, _)| name.clone());
    if let Some(oldest) = oldest {
        entries.remove(&oldest);
    }
}

/// More services than any one process calls; names that come from outside cannot fill the memory.
const MOST_SERVICES: usize = 1024;
/// A Consul agent allows a client 200 connections, and each name takes one.
const MOST_UNKNOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Service {
        Known(usize),
        Unknown,
        Ended,
    }

    impl Known for Service {
        fn has_ended(&self) -> bool {
            *self == Service::Ended
        }

        fn is_unknown(&self) -> bool {
            *self == Service::Unknown
        }
    }

    #[test]
    fn a_service_is_made_once() {
        let services = Services::default();
        let first = services.find_or_insert("a", || Service::Known(1));
        let second = services.find_or_insert("a", || Service::Known(2));
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn one_that_has_ended_is_made_again() {
        let services = Services::default();
        services.find_or_insert("a", || Service::Ended);
        let second = services.find_or_insert("a", || Service::Known(2));
        assert_eq!(*second, Service::Known(2));
    }

    #[test]
    fn the_service_unused_for_longest_makes_place_unless_somebody_holds_it() {
        let services = Services::default();
        let held = services.find_or_insert("0", || Service::Known(0));
        for n in 1..MOST_SERVICES {
            services.find_or_insert(&n.to_string(), || Service::Known(n));
        }
        services.find_or_insert("1", || Service::Known(usize::MAX));
        services.find_or_insert("new", || Service::Known(usize::MAX));
        assert!(Arc::ptr_eq(&held, &services.find("0").expect("held")));
        assert!(services.find("1").is_some());
        assert!(services.find("2").is_none());
        assert_eq!(services.entries.load().len(), MOST_SERVICES);
    }

    #[test]
    fn names_that_are_no_services_push_out_each_other_alone() {
        let services = Services::default();
        for n in 0..100 {
            services.find_or_insert(&n.to_string(), || Service::Known(n));
        }
        for n in 0..10_000 {
            services.find_or_insert(&format!("no-{n}"), || Service::Unknown);
        }
        assert_eq!(services.entries.load().len(), 100 + MOST_UNKNOWN);
        assert!(services.find("0").is_some());
        assert!(services.find("no-9999").is_some());
    }
}
