use std::time::Instant;

use super::ConcurrencyLimit;
use crate::classify::Outcome;
use crate::clock;
use crate::slots;

/// The right to one call. Dropped without an outcome, it counts as a call that its caller gave up.
#[derive(Debug)]
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    limit: ConcurrencyLimit,
    started: Instant,
    in_flight: usize,
    told: bool,
    // Given back after the call was taken in.
    _slot: slots::Permit,
}

impl Permit {
    pub(super) fn new(slot: slots::Permit, limit: ConcurrencyLimit) -> Self {
        Self {
            started: clock::now(),
            in_flight: limit.slots.in_flight(),
            limit,
            told: false,
            _slot: slot,
        }
    }

    /// Says how the call went; it began when the permit was given.
    pub fn record(mut self, outcome: Outcome) {
        self.told = true;
        self.limit
            .measure(self.started, self.in_flight, Some(outcome));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.told {
            self.limit.measure(self.started, self.in_flight, None);
        }
    }
}
