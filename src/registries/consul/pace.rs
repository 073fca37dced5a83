use std::time::{Duration, Instant};

use crate::algo::Rng;
use crate::clock;
use crate::rng::ThreadRng;

/// How soon a blocking query may follow the one before.
///
/// Consul may answer although nothing changed for this service. Each such answer in a row after the first doubles the
/// distance between two queries, lest they turn into a flood; a change, or an answer that was waited for, brings it back.
/// The first is free since one change can be two in Consul, of the instance and of its checks.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    idle: u32,
}

impl Pace {
    /// When the next query may begin, given that it is `now`.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let start = match self.last {
            None => now,
            Some(last) => {
                let doublings = self.idle.saturating_sub(1).min(16);
                let apart = LEAST.saturating_mul(1 << doublings).min(MOST);
                // Ten per cent either way, so that many watches do not stay in step.
                let apart = apart.mul_f64(0.9 + 0.2 * ThreadRng.unit());
                let earliest = clock::after(last, apart);
                if earliest <= now {
                    self.idle = 0;
                }
                earliest.max(now)
            }
        };
        self.last = Some(start);
        start
    }

    pub(super) fn changed(&mut self) {
        self.idle = 0;
    }

    pub(super) fn unchanged(&mut self) {
        self.idle = self.idle.saturating_add(1);
    }
}

/// A deployment in full swing shows up fifty times a second at most: who called an instance that has just left would
/// notice a longer wait.
const LEAST: Duration = Duration::from_millis(20);
/// The longest that churn elsewhere may hide a change here.
const MOST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn churn_slows_the_loop_down_to_one_query_in_ten_seconds() {
        let mut pace = Pace::default();
        let began = clock::now();
        for _ in 0..20 {
            clock::until(pace.next(clock::now())).await;
            pace.unchanged();
        }
        let before = clock::now();
        assert!(before - began > Duration::from_secs(100));
        clock::until(pace.next(before)).await;
        let apart = clock::now() - before;
        assert!(
            apart >= MOST.mul_f64(0.9) && apart <= MOST.mul_f64(1.1) + Duration::from_millis(1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_waited_for_brings_the_pace_back() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            clock::until(pace.next(clock::now())).await;
            pace.unchanged();
        }
        clock::sleep(MOST * 2).await;
        let now = clock::now();
        assert_eq!(pace.next(now), now);
        assert!(pace.next(now) - now <= LEAST.mul_f64(1.1));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_followed_fifty_times_a_second_at_most() {
        let mut pace = Pace::default();
        let began = clock::now();
        for _ in 0..50 {
            clock::until(pace.next(clock::now())).await;
            pace.changed();
        }
        let took = clock::now() - began;
        assert!(
            took > Duration::from_millis(800) && took < Duration::from_millis(1200),
            "{took:?}"
        );
    }
}
