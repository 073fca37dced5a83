use super::sync::{AtomicU64, Ordering::Relaxed};

/// Lets a retry pass while the retries under way are no more than a share of all calls under way, or fewer than a floor.
///
/// It remembers nothing: what counts is what the peer has to bear at this moment. Both counts are in one word, the
/// retries in its upper half, so that two never share the last place. It guards nothing else, so all orderings are
/// relaxed.
#[derive(Debug)]
pub struct InFlight {
    share: f64,
    floor: u32,
    word: AtomicU64,
}

impl InFlight {
    /// A budget of `share` retries for each call under way, retries included (0.2 is a fifth), and of `floor` in any
    /// case.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        super::assert_share(share);
        Self {
            share,
            floor,
            word: AtomicU64::new(0),
        }
    }

    /// Counts a call that begins. [`end`](Self::end) must follow.
    pub fn begin(&self) {
        self.word.fetch_add(CALL, Relaxed);
    }

    /// A call has ended.
    pub fn end(&self) {
        self.word.fetch_sub(CALL, Relaxed);
    }

    /// Counts a retry that begins, if there may be one. [`release`](Self::release) must follow.
    pub fn withdraw(&self) -> bool {
        let next = |word| self.has_room(word).then_some(word + RETRY + CALL);
        self.word.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// A retry has ended.
    pub fn release(&self) {
        self.word.fetch_sub(RETRY + CALL, Relaxed);
    }

    /// How many retries are under way.
    pub fn retries(&self) -> u32 {
        retries(self.word.load(Relaxed))
    }

    /// How many calls are under way, retries included.
    pub fn calls(&self) -> u32 {
        calls(self.word.load(Relaxed))
    }

    fn has_room(&self, word: u64) -> bool {
        let retries = retries(word);
        retries < self.floor || f64::from(retries) <= self.share * f64::from(calls(word)) + 1e-9
    }
}

fn retries(word: u64) -> u32 {
    (word >> 32) as u32
}

fn calls(word: u64) -> u32 {
    word as u32
}

const CALL: u64 = 1;
const RETRY: u64 = 1 << 32;
