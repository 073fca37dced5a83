use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// What is known by service name, read without a lock and bounded: the entry that was unused for longest makes place.
#[derive(Debug)]
pub(super) struct Services<V> {
    entries: ArcSwap<HashMap<Box<str>, Arc<Entry<V>>>>,
    /// Held while an entry is added, so that no service gets two.
    adding: Mutex<()>,
    /// Counts additions: a cheap clock for who was used when.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    used: AtomicU64,
}

impl<V> Services<V> {
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
        if entries.len() >= MOST_SERVICES {
            evict(&mut entries);
        }
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

fn evict<V>(entries: &mut HashMap<Box<str>, Arc<Entry<V>>>) {
    let oldest = entries
        .iter()
        .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
        .map(|(name, _)| name.clone());
    if let Some(oldest) = oldest {
        entries.remove(&oldest);
    }
}

/// More services than any one process calls; names that come from outside cannot fill the memory.
const MOST_SERVICES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_made_once() {
        let services = Services::default();
        let first = services.find_or_insert("a", || 1);
        let second = services.find_or_insert("a", || 2);
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn the_service_unused_for_longest_makes_place() {
        let services = Services::default();
        for n in 0..MOST_SERVICES {
            services.find_or_insert(&n.to_string(), || n);
        }
        services.find_or_insert("0", || usize::MAX);
        services.find_or_insert("new", || usize::MAX);
        assert!(services.find("0").is_some());
        assert!(services.find("1").is_none());
        assert_eq!(services.entries.load().len(), MOST_SERVICES);
    }
}
