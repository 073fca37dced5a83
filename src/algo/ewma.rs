//! Peak-EWMA latency.
//!
//! A sample above the average replaces it at once; one below pulls it down by how much time has passed. So a slow
//! instance is noticed with its first slow answer, and trusted again only after a while (Finagle's peak EWMA).
//!
//! `now` counts from a moment of the caller's choice, so that the average and its time fit in one atomic word.

use std::time::Duration;

/// An average of latencies that jumps up and decays by time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakEwma {
    /// Seconds.
    cost: f32,
    /// Milliseconds. They wrap after 49 days; ages are taken modulo that.
    at: u32,
}

impl PeakEwma {
    /// An average that stands at `cost`.
    pub fn new(cost: Duration, now: Duration) -> Self {
        Self {
            cost: cost.as_secs_f32(),
            at: millis(now),
        }
    }

    /// The average at the last sample, in seconds; at least 1 ms.
    pub fn latest(self) -> f64 {
        f64::from(self.cost).max(FLOOR)
    }

    /// What is left of the average at `now` without a further sample, in seconds; at least 1 ms.
    pub fn read(self, now: Duration) -> f64 {
        (f64::from(self.cost) * self.left(now)).max(FLOOR)
    }

    /// Takes in the latency of a call that succeeded.
    #[must_use]
    pub fn observe(self, sample: Duration, now: Duration) -> Self {
        self.sample(sample.as_secs_f64(), now)
    }

    /// Takes in a call that failed after `elapsed`: never as a fast one, but as one that took four times the average,
    /// up to 30 s. So a single failure costs an instance little, and a row of them nearly all its traffic.
    #[must_use]
    pub fn penalise(self, elapsed: Duration, now: Duration) -> Self {
        let penalty = (self.read(now) * FAILURE_FACTOR).min(LONGEST_PENALTY);
        self.sample(elapsed.as_secs_f64().max(penalty), now)
    }

    /// The average as one word.
    pub fn to_bits(self) -> u64 {
        u64::from(self.cost.to_bits()) << 32 | u64::from(self.at)
    }

    /// The average that [`to_bits`](Self::to_bits) gave.
    pub fn from_bits(bits: u64) -> Self {
        Self {
            cost: f32::from_bits((bits >> 32) as u32),
            at: bits as u32,
        }
    }

    fn sample(self, sample: f64, now: Duration) -> Self {
        let cost = f64::from(self.cost);
        let left = self.left(now);
        let cost = if sample > cost {
            sample
        } else {
            cost * left + sample * (1.0 - left)
        };
        Self {
            cost: cost as f32,
            at: self.at.wrapping_add(self.age(now)),
        }
    }

    fn left(self, now: Duration) -> f64 {
        match self.age(now) {
            0 => 1.0,
            age => (-f64::from(age) / DECAY_MILLIS).exp(),
        }
    }

    /// 0 if a later sample came first, as it may when two threads record.
    fn age(self, now: Duration) -> u32 {
        let age = millis(now).wrapping_sub(self.at);
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

/// Finagle's and linkerd's time constant: after 10 s without a sample about a third is left.
const DECAY_MILLIS: f64 = 10_000.0;
/// Below a millisecond the network's noise decides, not the instance.
const FLOOR: f64 = 0.001;
/// Five failures in a row make an instance a thousand times dearer; one is forgotten after 14 s.
const FAILURE_FACTOR: f64 = 4.0;
/// Decays to 10 ms in 80 s, so that nobody is left out for long by a penalty alone.
const LONGEST_PENALTY: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_jumps_up_at_once_and_comes_down_by_time() {
        let ewma = PeakEwma::new(ms(10), ms(0));
        let slow = ewma.observe(ms(500), ms(1));
        assert!((slow.latest() - 0.5).abs() < 1e-6);

        let soon = slow.observe(ms(10), ms(2));
        assert!(soon.latest() > 0.499, "{soon:?}");
        let late = slow.observe(ms(10), ms(60_001));
        assert!((0.01..0.012).contains(&late.latest()), "{late:?}");
    }

    #[test]
    fn reading_changes_nothing_and_reading_twice_gives_the_same() {
        let ewma = PeakEwma::new(ms(100), ms(0));
        let bits = ewma.to_bits();
        let first = ewma.read(ms(5_000));
        assert_eq!(first, ewma.read(ms(5_000)));
        assert_eq!(bits, ewma.to_bits());
        assert!((first - 0.1 * (-0.5_f64).exp()).abs() < 1e-8);
    }

    #[test]
    fn failures_in_a_row_grow_dearer_up_to_a_limit() {
        let mut ewma = PeakEwma::new(ms(10), ms(0));
        for expected in [0.04, 0.16, 0.64, 2.56, 10.24, 30.0, 30.0] {
            ewma = ewma.penalise(Duration::ZERO, ms(0));
            assert!((ewma.latest() - expected).abs() < 1e-4, "{ewma:?}");
        }
    }

    #[test]
    fn a_slow_failure_costs_what_it_took() {
        let ewma = PeakEwma::new(ms(10), ms(0)).penalise(ms(60_000), ms(60_000));
        assert_eq!(ewma.latest(), 60.0);
    }

    #[test]
    fn a_sample_that_comes_late_does_not_turn_time_back() {
        let ewma = PeakEwma::new(ms(100), ms(1_000)).observe(ms(10), ms(900));
        assert_eq!(ewma, PeakEwma::new(ms(100), ms(1_000)));
    }

    #[test]
    fn time_may_wrap() {
        let before = Duration::from_millis(u64::from(u32::MAX) - 4_999);
        let ewma = PeakEwma::new(ms(100), before);
        let left = ewma.read(before + ms(10_000));
        assert!((left - 0.1 * (-1.0_f64).exp()).abs() < 1e-8);
    }

    proptest! {
        #[test]
        fn it_is_the_formula_in_doubles(
            samples in prop::collection::vec((0_u64..5_000, 0_u64..20_000, any::<bool>()), 1..100),
        ) {
            let mut ewma = PeakEwma::new(ms(30), ms(0));
            let (mut cost, mut now) = (0.03_f64, 0_u64);
            for (wait, took, failed) in samples {
                now += wait;
                let left = (-(wait as f64) / 10_000.0).exp();
                let mut sample = took as f64 / 1_000.0;
                if failed {
                    sample = sample.max((4.0 * (cost * left).max(0.001)).min(30.0));
                }
                cost = if sample > cost { sample } else { cost * left + sample * (1.0 - left) };
                ewma = if failed {
                    ewma.penalise(ms(took), ms(now))
                } else {
                    ewma.observe(ms(took), ms(now))
                };
                let error = (ewma.latest() - cost.max(0.001)).abs();
                prop_assert!(error <= cost.max(0.001) * 1e-4, "{} for {cost}", ewma.latest());
                prop_assert_eq!(PeakEwma::from_bits(ewma.to_bits()), ewma);
            }
        }

        #[test]
        fn a_failure_never_makes_it_cheaper_than_waiting(
            cost in 0_u64..100_000, took in 0_u64..100_000, wait in 0_u64..100_000,
        ) {
            let ewma = PeakEwma::new(ms(cost), ms(0));
            let failed = ewma.penalise(ms(took), ms(wait));
            prop_assert!(failed.latest() >= ewma.read(ms(wait)) * (1.0 - 1e-6));
        }
    }
}
