use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::algo::ejection::{History, Settings};
use crate::algo::ewma::PeakEwma;
use crate::rng::ThreadRng;

/// What is kept for an instance for as long as its key is known, whatever becomes of its weight and metadata.
///
/// Times count from the fleet's beginning. Calls meet only at atomics; `history` is locked where an ejection begins,
/// is prolonged or ends.
// A cache line, and the one that the prefetcher takes with it, so that instances do not slow each other down.
#[repr(align(128))]
#[derive(Debug)]
pub(super) struct Member<S> {
    /// Unique in the process; never 0.
    pub(super) id: u64,
    pub(super) service: S,
    in_flight: AtomicUsize,
    ewma: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    /// Grows when the instance is ejected and when it returns, so that the outcome of a call from before is not taken
    /// for news.
    generation: AtomicU32,
    /// The milliseconds at which a probe may go; 0 if the instance is not ejected.
    until: AtomicU64,
    /// How long the ejection lasts, and the probe may take before there is another, in milliseconds.
    wait: AtomicU64,
    history: Mutex<History>,
}

/// Whether an instance may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    In,
    /// Ejected.
    Out,
    /// Ejected, but due for a probe.
    Due,
}

// Relaxed throughout: each value stands for itself, and a pick that reads a slightly older one is as good a guess.
// What belongs together (generation, until, wait) is written under the fleet's lock and checked again there.
impl<S> Member<S> {
    /// A member that is expected to be as fast as `cost`.
    pub(super) fn new(service: S, cost: Duration, now: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            service,
            in_flight: AtomicUsize::new(0),
            ewma: AtomicU64::new(PeakEwma::new(cost, now).to_bits()),
            failures: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            until: AtomicU64::new(0),
            wait: AtomicU64::new(0),
            history: Mutex::default(),
        }
    }

    /// How dear a call is, in seconds.
    ///
    /// An instance with calls under way is taken at its latest sample: were time alone to make it cheaper, one that
    /// hangs would draw ever more calls.
    pub(super) fn cost(&self, now: Duration) -> f64 {
        let ewma = PeakEwma::from_bits(self.ewma.load(Ordering::Relaxed));
        match self.in_flight() {
            0 => ewma.read(now),
            _ => ewma.latest(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn standing(&self, now: Duration) -> Standing {
        match self.until.load(Ordering::Relaxed) {
            0 => Standing::In,
            until if until > millis(now) => Standing::Out,
            _ => Standing::Due,
        }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    /// When a probe may go, if the instance is ejected.
    pub(super) fn ejected_until(&self) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        (until != 0).then(|| Duration::from_millis(until))
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the caller the one probe. One that never ends makes room for another after the same wait.
    pub(super) fn claim_probe(&self, now: Duration) -> bool {
        let now = millis(now);
        let until = self.until.load(Ordering::Relaxed);
        let next = now + self.wait.load(Ordering::Relaxed);
        (1..=now).contains(&until)
            && self
                .until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The probe says nothing: the next call may be one.
    pub(super) fn release_probe(&self, now: Duration) {
        let now = millis(now);
        // `Err` if the instance has returned meanwhile.
        let _ = self
            .until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                (until != 0).then_some(now)
            });
    }

    pub(super) fn succeeded(&self, elapsed: Duration, now: Duration) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.update(|ewma| ewma.observe(elapsed, now));
    }

    /// Counts a failure and returns how many there were in a row.
    pub(super) fn failed(&self, elapsed: Duration, now: Duration) -> u32 {
        self.update(|ewma| ewma.penalise(elapsed, now));
        self.failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// The caller gave up. That it did so soon says nothing; that it did so late, how slow the instance is.
    pub(super) fn cancelled(&self, elapsed: Duration, now: Duration) {
        self.update(|ewma| {
            if elapsed.as_secs_f64() > ewma.latest() {
                ewma.observe(elapsed, now)
            } else {
                ewma
            }
        });
    }

    /// Ejects it, where `ejected` others of `live` are: for how long, or `None` if it would be one too many.
    pub(super) fn eject(
        &self,
        settings: &Settings,
        ejected: usize,
        live: usize,
        now: Duration,
    ) -> Option<Duration> {
        // Counted from the start either way: where no more may be ejected, not every further failure asks again.
        self.failures.store(0, Ordering::Relaxed);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = history.eject(settings, ejected, live, now, &mut ThreadRng)?;
        self.leave_out(wait, now);
        self.generation.fetch_add(1, Ordering::Relaxed);
        Some(wait)
    }

    /// The probe failed.
    pub(super) fn prolong(&self, settings: &Settings, now: Duration) -> Duration {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = history.prolong(settings, &mut ThreadRng);
        self.leave_out(wait, now);
        wait
    }

    /// It is back, and as fast as `cost` says.
    pub(super) fn bring_back(&self, cost: Duration, now: Duration) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.bring_back(now);
        self.update(|_| PeakEwma::new(cost, now));
        self.until.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn leave_out(&self, wait: Duration, now: Duration) {
        self.wait.store(millis(wait), Ordering::Relaxed);
        self.until.store(millis(now + wait), Ordering::Relaxed);
    }

    fn update(&self, change: impl Fn(PeakEwma) -> PeakEwma) {
        // Never `Err`, since the closure always gives a value.
        let _ = self
            .ewma
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                Some(change(PeakEwma::from_bits(bits)).to_bits())
            });
    }
}

/// At least 1, since 0 stands for "not ejected" and no wait at all would let every call be a probe.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
