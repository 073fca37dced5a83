use std::mem;

use super::CircuitBreaker;
use crate::classify::Outcome;
use crate::clock;

/// Asks the service inside whether it is ready; its panic counts as a failure.
#[inline]
pub(super) fn poll<T>(breaker: &CircuitBreaker, poll: impl FnOnce() -> T) -> T {
    let panics = Panics(breaker);
    let polled = poll();
    mem::forget(panics);
    polled
}

/// Counts what readiness ended with like the end of a call, unless a call would be refused now.
pub(super) fn count(breaker: &CircuitBreaker, outcome: Outcome) {
    if breaker.refuses() {
        return;
    }
    if let Ok(permit) = breaker.acquire(clock::now()) {
        permit.record(outcome);
    }
}

struct Panics<'a>(&'a CircuitBreaker);

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        count(self.0, Outcome::Failure);
    }
}
