use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use buttress::clock;
use buttress::observe::{Event, Observe};
use hdrhistogram::Histogram;

/// How a trip's calls are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Through buttress.
    Protected,
    /// Without it.
    Plain,
}

impl Path {
    pub const BOTH: [Self; 2] = [Self::Protected, Self::Plain];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "buttress",
            Self::Plain => "plain",
        }
    }
}

/// What happened to the trips of each phase.
#[derive(Default)]
pub struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    phases: Vec<PhaseStats>,
    /// Since the last progress line.
    latest: [Tally; 2],
}

pub struct PhaseStats {
    pub name: String,
    begun: Instant,
    pub tallies: [Tally; 2],
    /// The longest that the machine, rather than the application, held everything up.
    pub stall: Duration,
}

/// Where a trip belongs: to the phase in which it began.
#[derive(Clone, Copy)]
pub struct Begun {
    phase: usize,
    at: Instant,
    /// Whether the fault is so fresh that nobody can have noticed: the trip's time does not count, its success does.
    fresh: bool,
}

#[derive(Clone)]
pub struct Tally {
    pub trips: u64,
    /// Those that failed, or have not ended.
    pub lost: u64,
    /// Calls between services, trips included, as the application meant them.
    pub calls: u64,
    /// Calls sent again.
    pub retries: u64,
    /// Trips whose price came from the cache.
    pub cached_prices: u64,
    pub lost_messages: u64,
    /// Messages that were under way in a process when it was killed: nothing outside it could have kept them.
    pub died_messages: u64,
    micros: Histogram<u64>,
}

impl Stats {
    pub fn begin_phase(&self, name: impl Into<String>) {
        self.lock().phases.push(PhaseStats {
            name: name.into(),
            begun: clock::now(),
            tallies: Default::default(),
            stall: Duration::ZERO,
        });
    }

    /// Counts a trip, as lost until it ends well.
    pub fn begin_trip(&self, path: Path) -> Begun {
        let mut inner = self.lock();
        let phase = inner.phases.len() - 1;
        let at = clock::now();
        let fresh = at - inner.phases[phase].begun < NOTICED;
        let tally = &mut inner.phases[phase].tallies[path as usize];
        tally.trips += 1;
        tally.lost += 1;
        Begun { phase, at, fresh }
    }

    pub fn end_trip(&self, path: Path, begun: Begun, success: bool) {
        let elapsed = clock::now() - begun.at;
        let inner = &mut *self.lock();
        let micros = elapsed.as_micros() as u64;
        let phase = &mut inner.phases[begun.phase].tallies[path as usize];
        phase.lost -= u64::from(success);
        if !begun.fresh {
            phase.micros.saturating_record(micros);
        }
        let latest = &mut inner.latest[path as usize];
        latest.trips += 1;
        latest.lost += u64::from(!success);
        latest.micros.saturating_record(micros);
    }

    /// Notes that the machine held everything up for so long.
    pub fn stalled(&self, stall: Duration) {
        if let Some(phase) = self.lock().phases.last_mut() {
            phase.stall = phase.stall.max(stall);
        }
    }

    pub fn call(&self, path: Path) {
        self.count(path, |tally| tally.calls += 1);
    }

    /// Begins a message.
    pub fn message(self: &Arc<Self>, path: Path) -> MessageBegun {
        MessageBegun {
            stats: self.clone(),
            path,
            ended: false,
        }
    }

    /// The figures since the last time.
    pub fn take_latest(&self) -> [Tally; 2] {
        std::mem::take(&mut self.lock().latest)
    }

    /// The name of the phase that runs.
    pub fn phase(&self) -> String {
        let inner = self.lock();
        inner
            .phases
            .last()
            .map(|phase| phase.name.clone())
            .unwrap_or_default()
    }

    pub fn take_phases(&self) -> Vec<PhaseStats> {
        std::mem::take(&mut self.lock().phases)
    }

    fn count(&self, path: Path, change: impl FnOnce(&mut Tally)) {
        if let Some(phase) = self.lock().phases.last_mut() {
            change(&mut phase.tallies[path as usize]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics under it")
    }
}

/// A message under way. Dropped without an end, it died with its process.
pub struct MessageBegun {
    stats: Arc<Stats>,
    path: Path,
    ended: bool,
}

impl MessageBegun {
    pub fn end(mut self, success: bool) {
        self.ended = true;
        let lost = u64::from(!success);
        self.stats
            .count(self.path, |tally| tally.lost_messages += lost);
    }
}

impl Drop for MessageBegun {
    fn drop(&mut self) {
        if !self.ended {
            self.stats
                .count(self.path, |tally| tally.died_messages += 1);
        }
    }
}

/// Counts what the layers did to keep the trips.
impl Observe for Stats {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Retrying { .. } => self.count(Path::Protected, |tally| tally.retries += 1),
            Event::FellBack { .. } => self.count(Path::Protected, |tally| tally.cached_prices += 1),
            _ => {}
        }
    }
}

impl PhaseStats {
    pub fn of(&self, path: Path) -> &Tally {
        &self.tallies[path as usize]
    }
}

impl Tally {
    /// The share of trips that succeeded, of 1.
    pub fn success(&self) -> f64 {
        1.0 - share(self.lost, self.trips)
    }

    /// How many more calls were sent than were meant, as a share of 1.
    pub fn extra_load(&self) -> f64 {
        share(self.retries, self.calls)
    }

    /// The time that this share of trips (of 1) took at most.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(quantile))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            trips: 0,
            lost: 0,
            calls: 0,
            retries: 0,
            cached_prices: 0,
            lost_messages: 0,
            died_messages: 0,
            micros: Histogram::new_with_max(LONGEST_MICROS, 3).expect("3 digits are in range"),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What takes longer counts as a minute.
const LONGEST_MICROS: u64 = 60_000_000;

/// Times are promised from so long after a fault began.
pub const NOTICED: Duration = Duration::from_secs(1);
