use std::time::{Duration, Instant};

use super::sync::{AtomicU64, Ordering, lanes, mine};
use crate::algo::breaker::Breaker;
use crate::algo::lanes::{Lanes, SHARED};
use crate::algo::tick::{self, Moment};
use crate::slab::{Lend, Loans};

/// What a call goes by while the breaker lets every call through, so that it needs no lock: it is admitted, and its
/// success is counted in a lane as long as successes [decide nothing](Breaker::calm_until).
///
/// The breaker is given them before its next step, so that it never decides without one that was counted before. They
/// carry their epoch: those of an earlier one are dropped.
#[derive(Debug)]
pub(super) struct Flow {
    /// Of the breaker, or `STOPPED`.
    epoch: AtomicU64,
    /// In [nanoseconds](tick::nanos); zero while a success may decide.
    calm_until: AtomicU64,
    /// In nanoseconds.
    slow_call: AtomicU64,
    pub(super) lanes: Lanes<Lane>,
}

/// What a thread counts for itself.
#[derive(Debug)]
pub(super) struct Lane {
    /// How many successes were counted in an epoch, which is in the upper half. Both halves go round.
    successes: AtomicU64,
    pub(super) loans: Loans,
}

impl Lane {
    fn new() -> Self {
        Self {
            successes: AtomicU64::new(0),
            loans: Loans::default(),
        }
    }
}

impl Lend for Flow {
    fn loans(&self) -> impl Iterator<Item = &Loans> {
        self.lanes.iter().map(|lane| &lane.loans)
    }
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(STOPPED),
            calm_until: AtomicU64::new(0),
            slow_call: AtomicU64::new(0),
            lanes: Lanes::new(lanes(), Lane::new),
        }
    }

    /// Goes by a new breaker, whose calls are the only ones from now on.
    pub(super) fn start(&self, breaker: &Breaker, now: Instant) {
        for lane in self.lanes.iter() {
            lane.successes.store(0, Ordering::Relaxed);
        }
        self.set(breaker, now);
    }

    /// Goes by what `breaker` is after a step.
    pub(super) fn set(&self, breaker: &Breaker, now: Instant) {
        let calm = breaker.calm_until(now);
        let calm = calm.map_or(0, tick::nanos);
        self.calm_until.store(calm, Ordering::Relaxed);
        let slow_call = nanos(breaker.slow_call());
        self.slow_call.store(slow_call, Ordering::Relaxed);
        // Released last: who reads an epoch reads no older settings.
        let epoch = breaker.flowing().unwrap_or(STOPPED);
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Counts a call that begins.
    #[inline(always)]
    pub(super) fn begin(&self) {
        let (mine, lane) = mine(&self.lanes);
        mine.loans.begin(lane);
    }

    /// Counts a call that has ended.
    #[inline(always)]
    pub(super) fn end(&self) {
        let (mine, lane) = mine(&self.lanes);
        mine.loans.end(lane);
    }

    /// The epoch of a call that comes now, if it is let through.
    #[inline(always)]
    pub(super) fn epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch != STOPPED).then_some(epoch)
    }

    /// Counts a call's end if it is a success that is not up to the breaker.
    #[inline(always)]
    pub(super) fn succeed(&self, epoch: u64, started: Instant, now: Moment) -> bool {
        let mine = match self.is_slow(started, now.at) {
            true => None,
            false => self.count(epoch, now),
        };
        if let Some((mine, lane)) = mine {
            mine.loans.end(lane);
        }
        mine.is_some()
    }

    /// Counts a success that is not up to the breaker, and was not slow. Says in which lane.
    #[inline(always)]
    pub(super) fn count(&self, epoch: u64, now: Moment) -> Option<(&Lane, usize)> {
        if self.epoch.load(Ordering::Acquire) != epoch || !self.is_calm(now) {
            return None;
        }
        let next = |seen: u64| match (epoch as u32).wrapping_sub((seen >> 32) as u32) {
            0 => Some(seen & EPOCH | u64::from((seen as u32).wrapping_add(1))),
            // The first of its epoch here.
            1..=NEWER => Some(epoch << 32 | 1),
            // The state has changed since.
            _ => None,
        };
        let (mine, lane) = mine(&self.lanes);
        let successes = &mine.successes;
        if lane == SHARED {
            let _ = successes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        } else if let Some(next) = next(successes.load(Ordering::Relaxed)) {
            successes.store(next, Ordering::Relaxed);
        }
        Some((mine, lane))
    }

    /// Whether it makes a difference how long a call took.
    #[inline(always)]
    pub(super) fn times_calls(&self) -> bool {
        self.slow_call.load(Ordering::Relaxed) != u64::MAX
    }

    #[inline(always)]
    fn is_calm(&self, now: Moment) -> bool {
        let until = self.calm_until.load(Ordering::Relaxed);
        tick::begin(now.tick + 1) <= until || tick::nanos(now.at) < until
    }

    #[inline(always)]
    pub(super) fn is_slow(&self, started: Instant, now: Instant) -> bool {
        let slow_call = self.slow_call.load(Ordering::Relaxed);
        slow_call != u64::MAX && nanos(now.saturating_duration_since(started)) > slow_call
    }
}

/// How many successes of each lane the breaker was given in an epoch.
#[derive(Debug)]
pub(super) struct Given {
    epoch: u32,
    lanes: Box<[u32]>,
}

impl Given {
    pub(super) fn new() -> Self {
        Self {
            epoch: 0,
            lanes: vec![0; lanes()].into(),
        }
    }

    /// How many more there are by now. An epoch goes round after so long that no lane has one of the round before.
    pub(super) fn more(&mut self, flow: &Flow, epoch: u64) -> u64 {
        let epoch = epoch as u32;
        if self.epoch != epoch {
            self.epoch = epoch;
            self.lanes.fill(0);
        }
        let mut more = 0;
        for (lane, given) in flow.lanes.iter().zip(&mut self.lanes) {
            let word = lane.successes.load(Ordering::Relaxed);
            if (word >> 32) as u32 == epoch {
                more += u64::from((word as u32).wrapping_sub(*given));
                *given = word as u32;
            }
        }
        more
    }
}

/// In whole nanoseconds; what is beyond 584 years counts as that.
#[inline]
fn nanos(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(time.subsec_nanos().into())
}

const STOPPED: u64 = u64::MAX;
const EPOCH: u64 = !(u32::MAX as u64);
const NEWER: u32 = u32::MAX / 2;
