use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The instances that the attempts of one call went to, so that the next attempt goes elsewhere.
///
/// It holds the latest eight; a call that is tried more often may come back to the first ones.
#[derive(Debug, Default)]
pub struct Tried {
    /// Ids of members; 0 where there is none.
    ids: [AtomicU64; 8],
    next: AtomicUsize,
}

// Relaxed throughout: nothing else is published through a mark, and a missed one costs a second try of an instance.
impl Tried {
    pub(super) fn insert(&self, id: u64) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.ids[next % self.ids.len()].store(id, Ordering::Relaxed);
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.ids
            .iter()
            .any(|tried| tried.load(Ordering::Relaxed) == id)
    }
}
