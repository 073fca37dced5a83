use std::sync::Arc;

/// How slots are shared out, and how the calls of each partition are counted in one word, so that one compare-and-swap
/// decides: equally wide fields above the lowest two bits, the first for whoever is of no partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(Arc<[f64]>);

impl Shares {
    /// The partition of those that are of none.
    pub(crate) const REST: usize = 0;
    /// The most partitions: each can then count 4095 calls at the least.
    pub(crate) const MOST: usize = 4;

    /// Partitions 1, 2, … of these shares of the limit.
    pub(crate) fn new(shares: impl IntoIterator<Item = f64>) -> Self {
        Self(shares.into_iter().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots of `limit` the partition has for itself: its share, rounded up, and at least one.
    pub(super) fn of(&self, partition: usize, limit: usize) -> usize {
        match partition.checked_sub(1) {
            // The product of a decimal share is a hair off: a tenth of 30 is 3.000…4.
            Some(named) => ((limit as f64 * self.0[named] - 1e-9).ceil() as usize).max(1),
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
        (0..=self.0.len())
            .map(|partition| self.count(word, partition))
            .sum()
    }

    fn width(&self) -> u32 {
        62 / (self.0.len() as u32 + 1)
    }

    fn mask(&self) -> u64 {
        (1 << self.width()) - 1
    }
}
