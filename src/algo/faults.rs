//! Which faults a call meets that is to be troubled on purpose.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Rng;

/// What share of the calls meets which fault. None, unless set.
///
/// A call meets at most one of error, hang and cut; it may be late besides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    late: f64,
    least: Duration,
    most: Duration,
    errors: f64,
    hangs: f64,
    cuts: f64,
}

impl Faults {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// This share of the answers, from 0 to 1, comes later by a time out of `delay`, each as likely as the other.
    ///
    /// # Panics
    ///
    /// If `share` is not from 0 to 1, or `delay` is empty.
    #[must_use]
    #[track_caller]
    pub fn latency(mut self, share: f64, delay: RangeInclusive<Duration>) -> Self {
        assert_share(share);
        assert!(
            !delay.is_empty(),
            "a delay between {delay:?} does not exist"
        );
        self.late = share;
        (self.least, self.most) = delay.into_inner();
        self
    }

    /// This share of the calls fails in place of being made.
    ///
    /// # Panics
    ///
    /// If `share` is not from 0 to 1, or errors, hangs and cuts are more than 1 together.
    #[must_use]
    #[track_caller]
    pub fn errors(mut self, share: f64) -> Self {
        self.errors = share;
        self.checked(share)
    }

    /// This share of the calls is not made and never ends.
    ///
    /// # Panics
    ///
    /// As [`errors`](Self::errors).
    #[must_use]
    #[track_caller]
    pub fn hangs(mut self, share: f64) -> Self {
        self.hangs = share;
        self.checked(share)
    }

    /// This share of the answers is cut short.
    ///
    /// # Panics
    ///
    /// As [`errors`](Self::errors).
    #[must_use]
    #[track_caller]
    pub fn cuts(mut self, share: f64) -> Self {
        self.cuts = share;
        self.checked(share)
    }

    /// Whether no call meets a fault.
    pub fn is_none(&self) -> bool {
        self.late + self.errors + self.hangs + self.cuts == 0.0
    }

    /// What the next call meets: how much later its answer comes, and what else.
    ///
    /// It draws three times whatever the shares are, so that changing one fault leaves the others where they were.
    pub fn draw(&self, rng: &mut impl Rng) -> (Option<Duration>, Option<Fault>) {
        let (late, place, kind) = (rng.unit(), rng.unit(), rng.unit());
        let delay = || self.least + (self.most - self.least).mul_f64(place);
        let fault = [
            (self.errors, Fault::Error),
            (self.hangs, Fault::Hang),
            (self.cuts, Fault::Cut),
        ];
        let mut below = 0.0;
        let fault = fault.into_iter().find(|(share, _)| {
            below += share;
            kind < below
        });
        (
            (late < self.late).then(delay),
            fault.map(|(_, fault)| fault),
        )
    }

    #[track_caller]
    fn checked(self, share: f64) -> Self {
        assert_share(share);
        let sum = self.errors + self.hangs + self.cuts;
        // Decimal shares that make up 1 can be a hair above it.
        assert!(
            sum <= 1.0 + 1e-9,
            "errors, hangs and cuts are {sum} together"
        );
        self
    }
}

/// What a call meets in place of its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Error,
    /// It never ends.
    Hang,
    /// Its answer is cut short.
    Cut,
}

#[track_caller]
fn assert_share(share: f64) {
    assert!(
        (0.0..=1.0).contains(&share),
        "a share must be from 0 to 1, not {share}"
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::algo::Seeded;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn each_fault_meets_its_share_of_the_calls() {
        let faults = Faults::new()
            .latency(0.3, MILLI..=3 * MILLI)
            .errors(0.2)
            .hangs(0.1)
            .cuts(0.05);
        let mut rng = Seeded::new(7);
        let drawn: Vec<_> = (0..100_000).map(|_| faults.draw(&mut rng)).collect();
        let share = |of: usize| (of as f64 / 1000.0).round() / 100.0;
        let met = |fault| share(drawn.iter().filter(|it| it.1 == fault).count());
        assert_eq!(met(Some(Fault::Error)), 0.2);
        assert_eq!(met(Some(Fault::Hang)), 0.1);
        assert_eq!(met(Some(Fault::Cut)), 0.05);
        assert_eq!(met(None), 0.65);
        let delays: Vec<_> = drawn.iter().filter_map(|it| it.0).collect();
        assert_eq!(share(delays.len()), 0.3);
        assert!(delays.iter().all(|it| (MILLI..=3 * MILLI).contains(it)));
        let sum: Duration = delays.iter().sum();
        let mean = sum / u32::try_from(delays.len()).unwrap();
        assert!(mean.abs_diff(2 * MILLI) < MILLI / 20, "{mean:?}");
    }

    #[test]
    fn the_whole_and_nothing_are_met_exactly() {
        let mut rng = Seeded::new(0);
        for _ in 0..10_000 {
            assert_eq!(Faults::new().draw(&mut rng), (None, None));
            let all = Faults::new().latency(1.0, MILLI..=MILLI).hangs(1.0);
            assert_eq!(all.draw(&mut rng), (Some(MILLI), Some(Fault::Hang)));
            let tenths = Faults::new().errors(0.7).hangs(0.1).cuts(0.2);
            assert!(tenths.draw(&mut rng).1.is_some());
        }
    }

    #[test]
    fn impossible_shares_panic() {
        let faults: [fn() -> Faults; 5] = [
            || Faults::new().errors(1.1),
            || Faults::new().hangs(-0.1),
            || Faults::new().cuts(f64::NAN),
            || Faults::new().errors(0.6).hangs(0.5),
            || Faults::new().latency(0.5, 2 * MILLI..=MILLI),
        ];
        for (i, faults) in faults.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(faults).is_err(), "faults {i}");
        }
    }

    proptest! {
        #[test]
        fn one_fault_can_be_changed_without_moving_the_others(
            seed: u64,
            errors in 0.0..0.5_f64,
            hangs in 0.0..0.5_f64,
        ) {
            let faults = Faults::new().errors(errors).latency(0.5, MILLI..=9 * MILLI);
            let changed = faults.clone().hangs(hangs);
            let (mut rng, mut again) = (Seeded::new(seed), Seeded::new(seed));
            for _ in 0..50 {
                let (before, after) = (faults.draw(&mut rng), changed.draw(&mut again));
                prop_assert_eq!(before.0, after.0);
                prop_assert_eq!(before.1 == Some(Fault::Error), after.1 == Some(Fault::Error));
            }
        }
    }
}
