use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many times the calls under way a limit may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headroom {
    pub(super) factor: f64,
    pub(super) decay: f64,
    pub(super) least: f64,
}

impl Headroom {
    pub(super) fn above(self, in_flight: usize) -> f64 {
        let calls = in_flight as f64;
        if self.decay == 0.0 || in_flight == 0 {
            return calls * self.factor;
        }
        calls * (self.factor - self.decay * calls.log10()).max(self.least)
    }
}

/// The most calls under way within a time: each one kept is above all that came after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks {
    pub(super) memory: Duration,
    peaks: VecDeque<(usize, Instant)>,
}

impl Peaks {
    pub(super) fn add(&mut self, in_flight: usize, now: Instant) -> usize {
        while self
            .peaks
            .back()
            .is_some_and(|&(peak, _)| peak <= in_flight)
        {
            self.peaks.pop_back();
        }
        self.peaks.push_back((in_flight, now));
        let memory = self.memory;
        let gone = |at: Instant| now != at && now.saturating_duration_since(at) >= memory;
        while self.peaks.front().is_some_and(|&(_, at)| gone(at)) {
            self.peaks.pop_front();
        }
        self.peaks.front().map_or(in_flight, |&(peak, _)| peak)
    }
}
