use super::settings::Settings;
use super::sync::{AtomicU64, Ordering::Relaxed};

/// Lets a retry pass while the retries under way are no more than a share of all calls under way, or fewer than a floor.
///
/// It remembers nothing: what counts is what the peer has to bear at this moment. Both counts are in one word, the
/// retries in its upper half, so that two never share the last place. It guards nothing else, so all orderings are
/// relaxed.
#[derive(Debug)]
pub struct InFlight {
    settings: Settings,
    word: AtomicU64,
}

impl InFlight {
    /// A budget of `share` retries for each call under way, retries included (0.2 is a fifth), and of `floor` in any
    /// case. With 0 and 0 there are none.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        Self {
            settings: Settings::new(share, floor),
            word: AtomicU64::new(0),
        }
    }

    /// Changes the share and the floor for all retries that begin from now on. Those under way go on, and count.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn reconfigure(&self, share: f64, floor: u32) {
        self.settings.change(share, floor);
    }

    /// How many retries there may be for each call under way.
    pub fn share(&self) -> f64 {
        self.settings.share()
    }

    /// How many there may be in any case.
    pub fn floor(&self) -> u32 {
        self.settings.floor()
    }

    /// How many retries could begin now, one after the other and none ending: [`u32::MAX`] if there is no bound, because
    /// the share is 1 or more.
    pub fn available(&self) -> u32 {
        let (share, floor) = (self.share(), self.floor());
        if share >= 1.0 {
            return u32::MAX;
        }
        let word = self.word.load(Relaxed);
        let by_floor = floor.saturating_sub(retries(word));
        let over = share * f64::from(calls(word)) + HAIR - f64::from(retries(word));
        if share == 0.0 || over < 0.0 {
            return by_floor;
        }
        // Each is a call as well, and brings a share of the next. The last is one more than the share.
        let by_share = (over / (1.0 - share)) as u32;
        by_share.saturating_add(1).max(by_floor)
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
        let (share, retries) = (self.share(), retries(word));
        let by_share = share * f64::from(calls(word)) + HAIR;
        retries < self.floor() || share > 0.0 && f64::from(retries) <= by_share
    }
}

fn retries(word: u64) -> u32 {
    (word >> 32) as u32
}

fn calls(word: u64) -> u32 {
    word as u32
}

/// The product of a decimal share is a hair off.
const HAIR: f64 = 1e-9;
const CALL: u64 = 1;
const RETRY: u64 = 1 << 32;
