use std::sync::OnceLock;
use std::time::Instant;

use super::settings::Settings;
use super::sync::{AtomicU64, AtomicUsize, Ordering::Relaxed, lanes, mine};
use crate::algo::lanes::{Lanes, SHARED};
use crate::algo::tick::{self, Moment};

/// Lets a retry pass while the window holds fewer than a share of its first attempts, or than a floor.
///
/// The window is ten whole seconds, the one that is being filled included, counted from the first use. Every call
/// deposits, so the counts are atomics, those of deposits in lanes, and no call waits for another.
#[derive(Debug)]
pub struct Budget {
    settings: Settings,
    /// In [nanoseconds](tick::nanos).
    origin: OnceLock<u64>,
    deposits: Lanes<Lane>,
    withdrawals: Window,
}

impl Budget {
    /// A budget of `share` retries for each first attempt (0.2 is a fifth), and of `floor` a second, whichever is
    /// more.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        Self {
            settings: Settings::new(share, floor),
            origin: OnceLock::new(),
            deposits: Lanes::new(lanes(), Lane::default),
            withdrawals: Window::default(),
        }
    }

    /// Changes the share and the floor for all that is withdrawn from now on. What was counted stays, and retries that
    /// were made beyond the new ones count against them until they are ten seconds old.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn reconfigure(&self, share: f64, floor: u32) {
        self.settings.change(share, floor);
    }

    /// How many retries it pays for, for each first attempt.
    pub fn share(&self) -> f64 {
        self.settings.share()
    }

    /// How many it pays for in any case, a second.
    pub fn floor(&self) -> u32 {
        self.settings.floor()
    }

    /// How many retries could be taken out now.
    pub fn available(&self, now: Instant) -> u32 {
        let second = self.second(now);
        (self.paid_for(second) - self.withdrawals.sum(second) as f64) as u32
    }

    /// Counts a first attempt.
    pub fn deposit(&self, now: Instant) {
        self.deposit_at(Moment::of(now));
    }

    #[inline(always)]
    pub(crate) fn deposit_at(&self, now: Moment) {
        // Taken apart, so that it need not be kept in memory for whoever enters a tick.
        let Moment { at, tick } = now;
        let (mine, lane) = mine(&self.deposits);
        if lane == SHARED {
            mine.window.add_if(self.second(at), || true);
            return;
        }
        let slot = if mine.tick.load(Relaxed) == tick {
            mine.slot.load(Relaxed)
        } else {
            self.enter(mine, at, tick)
        };
        mine.window.add_alone(slot);
    }

    /// The slot of the second in which `at` lies, remembered by the lane if all of the tick lies in it.
    #[cold]
    fn enter(&self, mine: &Lane, at: Instant, tick: u64) -> usize {
        let second = self.second(at);
        let slot = mine.window.enter_alone(second);
        let ends = [tick::begin(tick), tick::begin(tick + 1) - 1];
        if ends.map(|end| self.second_of(end)) == [second; 2] {
            mine.slot.store(slot, Relaxed);
            mine.tick.store(tick, Relaxed);
        }
        slot
    }

    /// Takes a retry out, if the budget has one left.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        // Asked again where another withdrawal came first, so that two never share the last token. Only a race over
        // the turn of a second can let one too many pass.
        self.withdrawals.add_if(second, || {
            (self.withdrawals.sum(second) + 1) as f64 <= self.paid_for(second)
        })
    }

    /// Puts back the retry that was taken out at `then`, because it was never made.
    pub fn refund(&self, then: Instant) {
        self.withdrawals.take_back(self.second(then));
    }

    /// How many retries the window that ends with `second` pays for, withdrawn ones included.
    fn paid_for(&self, second: u64) -> f64 {
        let by_share = self.settings.share() * self.deposited(second) as f64;
        let by_floor = f64::from(self.settings.floor()) * SECONDS as f64;
        // The product of a decimal share is a hair off: 0.29 of 100 is 28.999….
        by_share.max(by_floor) + 1e-6
    }

    fn deposited(&self, second: u64) -> u64 {
        let lanes = self.deposits.iter();
        lanes.map(|lane| lane.window.sum(second)).sum()
    }

    /// The number of the second in which `now` lies.
    fn second(&self, now: Instant) -> u64 {
        self.second_of(tick::nanos(now))
    }

    fn second_of(&self, nanos: u64) -> u64 {
        let origin = *self.origin.get_or_init(|| nanos);
        nanos.saturating_sub(origin) / 1_000_000_000
    }
}

/// The deposits of a thread, and the tick in which it last made one.
#[derive(Debug, Default)]
struct Lane {
    window: Window,
    tick: AtomicU64,
    slot: AtomicUsize,
}

/// How many there were in each of the last ten seconds. Each slot holds the number of its second in the upper half
/// and the count in the lower, so that one exchange moves it on.
///
/// All orderings are relaxed: a slot guards nothing but itself.
#[derive(Debug, Default)]
struct Window([AtomicU64; SECONDS as usize]);

impl Window {
    fn add_if(&self, second: u64, allowed: impl Fn() -> bool) -> bool {
        self.slot(second)
            .fetch_update(Relaxed, Relaxed, |slot| {
                let newer = slot.max(second << 32);
                allowed().then_some(newer + 1)
            })
            .is_ok()
    }

    /// The slot of `second`, where no other thread changes it.
    fn enter_alone(&self, second: u64) -> usize {
        let slot = self.slot(second);
        slot.store(slot.load(Relaxed).max(second << 32), Relaxed);
        (second % SECONDS) as usize
    }

    /// Counts in a slot that was entered.
    #[inline(always)]
    fn add_alone(&self, slot: usize) {
        if let Some(slot) = self.0.get(slot) {
            slot.store(slot.load(Relaxed) + 1, Relaxed);
        }
    }

    fn take_back(&self, second: u64) {
        // Nothing to do where the slot has moved on: the window has forgotten the retry already.
        let _ = self.slot(second).fetch_update(Relaxed, Relaxed, |slot| {
            (slot >> 32 == second && count(slot) > 0).then(|| slot - 1)
        });
    }

    fn sum(&self, second: u64) -> u64 {
        let slots = self.0.iter().map(|slot| slot.load(Relaxed));
        slots
            .filter(|slot| (slot >> 32) + SECONDS > second)
            .map(count)
            .sum()
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.0[(second % SECONDS) as usize]
    }
}

fn count(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

pub(super) const SECONDS: u64 = 10;
