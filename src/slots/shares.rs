use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How slots are shared out, and how the calls of each partition are counted in one word, so that one compare-and-swap
/// decides: equally wide fields above the lowest two bits, the first for whoever is of no partition.
///
/// Set before anybody takes a slot.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    partitions: AtomicUsize,
    /// As bits.
    each: [AtomicU64; Shares::MOST],
}

impl Shares {
    /// The partition of those that are of none.
    pub(crate) const REST: usize = 0;
    /// The most partitions: each can then count 4095 calls at the least.
    pub(crate) const MOST: usize = 4;

    /// Partitions 1, 2, … of these shares of the limit.
    pub(super) fn set(&self, shares: &[f64]) {
        self.partitions.store(shares.len(), Relaxed);
        for (mine, share) in self.each.iter().zip(shares) {
            mine.store(share.to_bits(), Relaxed);
        }
    }

    fn partitions(&self) -> usize {
        self.partitions.load(Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions() == 0
    }

    /// How many slots of `limit` the partition has for itself: its share, rounded up, and at least one.
    pub(super) fn of(&self, partition: usize, limit: usize) -> usize {
        match partition.checked_sub(1) {
            Some(named) => {
                let share = f64::from_bits(self.each[named].load(Relaxed));
                // The product of a decimal share is a hair off: a tenth of 30 is 3.000…4.
                ((limit as f64 * share - 1e-9).ceil() as usize).max(1)
            }
            None => 0,
        }
    }

    /// Whether a partition may have one more: while fewer than `open` of all slots are taken, and while it has not its
    /// share, though others have borrowed it.
    pub(super) fn has_room(&self, word: u64, partition: usize, limit: usize, open: usize) -> bool {
        let count = self.count(word, partition);
        let fits = count < self.mask() as usize;
        fits && (self.total(word) < open || count < self.of(partition, limit))
    }

    /// One call of the partition.
    pub(super) fn unit(&self, partition: usize) -> u64 {
        1 << (2 + self.width() * partition as u32)
    }

    pub(super) fn count(&self, word: u64, partition: usize) -> usize {
        ((word / self.unit(partition)) & self.mask()) as usize
    }

    pub(super) fn total(&self, word: u64) -> usize {
        (0..=self.partitions())
            .map(|partition| self.count(word, partition))
            .sum()
    }

    fn width(&self) -> u32 {
        62 / (self.partitions() as u32 + 1)
    }

    fn mask(&self) -> u64 {
        (1 << self.width()) - 1
    }
}
