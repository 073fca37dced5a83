use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use crate::algo::quantile::{Quantile, WINDOW};
use crate::clock;

/// How long an attempt may take before it is hedged: a fixed [`Duration`], or a [`LiveQuantile`]. Clones share what was
/// measured.
#[derive(Clone, Debug)]
pub struct Delay(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Fixed(Duration),
    Live(Arc<Latencies>),
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self(Kind::Fixed(delay))
    }
}

impl From<LiveQuantile> for Delay {
    fn from(settings: LiveQuantile) -> Self {
        Self(Kind::Live(Arc::new(Latencies::new(settings))))
    }
}

impl Delay {
    /// How long that is now.
    pub fn current(&self) -> Duration {
        match &self.0 {
            Kind::Fixed(delay) => *delay,
            Kind::Live(latencies) => latencies.delay(),
        }
    }

    /// Measures the first attempt of a call, where the delay depends on it.
    pub(super) fn measure(&self, now: Instant) -> Option<Sample> {
        match &self.0 {
            Kind::Fixed(_) => None,
            Kind::Live(latencies) => Some(Sample {
                latencies: Arc::clone(latencies),
                started: now,
                answered: None,
            }),
        }
    }
}

/// A delay that follows a quantile of the last thousand first attempts: after p95, a twentieth of the calls is hedged.
///
/// Failures are not counted, for a peer that fails fast is not fast. An attempt that was overtaken or given up after
/// the delay counts with the time it had, so that the delay does not forget the slow ones that it cut short.
#[derive(Clone, Debug)]
pub struct LiveQuantile {
    share: f64,
    minimum: usize,
    bounds: RangeInclusive<Duration>,
}

impl LiveQuantile {
    /// The latency that a `share` of the calls do not exceed: 0.95 for p95.
    ///
    /// # Panics
    ///
    /// If `share` is not above 0 and below 1.
    #[track_caller]
    pub fn new(share: f64) -> Self {
        assert!(
            share > 0.0 && share < 1.0,
            "a quantile lies between 0 and 1, which {share} does not"
        );
        Self {
            share,
            minimum: MINIMUM,
            bounds: LEAST..=MOST,
        }
    }

    /// Follows the latency once so many calls were measured; until then the delay is the upper bound. The default is
    /// 100: of fewer, p95 rests on less than five calls.
    ///
    /// # Panics
    ///
    /// If `calls` is 0, or more than the thousand that are looked back on.
    #[must_use]
    #[track_caller]
    pub fn minimum_samples(mut self, calls: usize) -> Self {
        assert!(
            (1..=WINDOW).contains(&calls),
            "a minimum of {calls} samples is not within 1 and {WINDOW}"
        );
        self.minimum = calls;
        self
    }

    /// Keeps the delay within `bounds`, whatever the latency is. The default is 1 ms, below which timers do not go, to
    /// 1 s, at which somebody waits.
    ///
    /// # Panics
    ///
    /// If `bounds` is empty.
    #[must_use]
    #[track_caller]
    pub fn bounds(mut self, bounds: RangeInclusive<Duration>) -> Self {
        assert!(!bounds.is_empty(), "no delay lies within {bounds:?}");
        self.bounds = bounds;
        self
    }
}

/// p95: hedging the slowest twentieth is what the default budget pays for.
impl Default for LiveQuantile {
    fn default() -> Self {
        Self::new(0.95)
    }
}

#[derive(Debug)]
struct Latencies {
    settings: LiveQuantile,
    quantile: Mutex<Quantile>,
    /// The delay in nanoseconds. Relaxed, for it guards nothing.
    delay: AtomicU64,
}

impl Latencies {
    fn new(settings: LiveQuantile) -> Self {
        Self {
            quantile: Mutex::new(Quantile::new(settings.share)),
            delay: AtomicU64::new(nanos(*settings.bounds.end())),
            settings,
        }
    }

    fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Ordering::Relaxed))
    }

    fn record(&self, latency: Duration) {
        // No call waits for another: a sample that meets one being recorded is left out, whatever it says.
        let mut quantile = match self.quantile.try_lock() {
            Ok(quantile) => quantile,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        quantile.record(latency);
        if quantile.samples() < self.settings.minimum {
            return;
        }
        if let Some(estimate) = quantile.estimate() {
            let (least, most) = self.settings.bounds.clone().into_inner();
            let delay = nanos(estimate.clamp(least, most));
            self.delay.store(delay, Ordering::Relaxed);
        }
    }
}

/// The measurement of a first attempt, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sample {
    latencies: Arc<Latencies>,
    started: Instant,
    /// Whether the attempt has ended, and with an answer.
    answered: Option<bool>,
}

impl Sample {
    pub(super) fn end(mut self, answered: bool) {
        self.answered = Some(answered);
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if self.answered == Some(false) {
            return;
        }
        let latency = clock::now().saturating_duration_since(self.started);
        // One that was dropped would have taken longer. Before the delay, that could be anything; past it, it lies
        // above the quantile either way.
        if self.answered.is_some() || latency >= self.latencies.delay() {
            self.latencies.record(latency);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const MINIMUM: usize = 100;
const LEAST: Duration = Duration::from_millis(1);
const MOST: Duration = Duration::from_secs(1);
