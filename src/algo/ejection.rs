//! Ejection of an instance that keeps failing, and its way back.
//!
//! After a row of failures an instance is left out for a while. Then one call, the probe, tries it: a success brings it
//! back, a failure leaves it out for twice as long. One doubling is forgotten for each base time that it then works.
//!
//! `now` counts from a moment of the caller's choice.

use std::time::Duration;

use super::Rng;

/// When an instance is ejected, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    consecutive_failures: u32,
    base_time: Duration,
    longest_time: Duration,
    max_share: f64,
}

impl Default for Settings {
    /// 5 failures in a row, for 10 s at first and 5 min at most, never more than half of the instances.
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_time: Duration::from_secs(10),
            longest_time: Duration::from_secs(300),
            max_share: 0.5,
        }
    }
}

impl Settings {
    /// Ejects after this many failures in a row. Default 5, as Envoy has it: at a failure rate of a tenth, one row in
    /// a hundred thousand.
    ///
    /// # Panics
    ///
    /// If `failures` is 0.
    #[must_use]
    #[track_caller]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        assert!(failures > 0, "0 failures in a row would eject everybody");
        self.consecutive_failures = failures;
        self
    }

    /// How long the first ejection lasts; each further one takes twice as long. Default 10 s: longer than most
    /// restarts of a process, shorter than anybody notices a missing instance.
    ///
    /// # Panics
    ///
    /// If `time` is 0.
    #[must_use]
    #[track_caller]
    pub fn base_time(mut self, time: Duration) -> Self {
        assert!(!time.is_zero(), "an ejection of no time would be none");
        self.base_time = time;
        self
    }

    /// The longest an ejection lasts, jitter included. Default 5 min: an instance that works again is found within
    /// that time. Shorter than the base time, it rules. Above a year it is a year.
    ///
    /// # Panics
    ///
    /// If `time` is 0.
    #[must_use]
    #[track_caller]
    pub fn longest_time(mut self, time: Duration) -> Self {
        assert!(!time.is_zero(), "an ejection of no time would be none");
        self.longest_time = time.min(YEAR);
        self
    }

    /// The share of the instances, from 0 to 1, that may be ejected at once, rounded down. Default 0.5: where most
    /// fail it is rarely the instances' fault, and the rest could not bear their load. 0 switches ejection off.
    ///
    /// # Panics
    ///
    /// If `share` is not from 0 to 1.
    #[must_use]
    #[track_caller]
    pub fn max_share(mut self, share: f64) -> Self {
        assert!(
            (0.0..=1.0).contains(&share),
            "{share} is no share from 0 to 1"
        );
        self.max_share = share;
        self
    }

    /// Whether so many failures in a row are too many.
    pub fn is_due(&self, failures: u32) -> bool {
        failures >= self.consecutive_failures
    }

    /// How many of `live` instances may be ejected at once.
    pub fn most(&self, live: usize) -> usize {
        // A share such as 0.29 of 100 is a hair below 29.
        (self.max_share * live as f64 + 1e-9) as usize
    }

    /// The wait before the probe, after `times` ejections before. From three quarters up to the whole of the doubled
    /// time, so that a fleet of callers does not probe in step.
    fn wait(&self, times: u32, rng: &mut impl Rng) -> Duration {
        let doubled = self.base_time.saturating_mul(1_u32 << times.min(31));
        doubled
            .min(self.longest_time)
            .mul_f64(1.0 - rng.unit() / 4.0)
    }
}

/// What is remembered of an instance's ejections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct History {
    /// Ejections not yet forgotten, failed probes included.
    times: u32,
    returned_at: Option<Duration>,
}

impl History {
    /// Ejects the instance, where `ejected` others of `live` are ejected already: for how long, or `None` if it would
    /// be one too many.
    pub fn eject(
        &mut self,
        settings: &Settings,
        ejected: usize,
        live: usize,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        if ejected >= settings.most(live) {
            return None;
        }
        if let Some(returned_at) = self.returned_at.take() {
            let worked = now.saturating_sub(returned_at).as_nanos();
            let forgotten = worked / settings.base_time.as_nanos();
            let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
            self.times = self.times.saturating_sub(forgotten);
        }
        Some(self.prolong(settings, rng))
    }

    /// The probe failed: for how long the instance stays out.
    pub fn prolong(&mut self, settings: &Settings, rng: &mut impl Rng) -> Duration {
        let wait = settings.wait(self.times, rng);
        self.times = self.times.saturating_add(1);
        wait
    }

    /// The instance is back.
    pub fn bring_back(&mut self, now: Duration) {
        self.returned_at = Some(now);
    }
}

/// So that a time added to it is within what a clock can hold.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::Rng;
    use proptest::prelude::*;

    struct Constant(u64);

    impl Rng for Constant {
        fn next_u64(&mut self) -> u64 {
            self.0
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_the_longest() {
        let settings = Settings::default();
        let mut history = History::default();
        let rng = &mut Constant(0);
        let first = history.eject(&settings, 0, 10, secs(0), rng);
        assert_eq!(first, Some(secs(10)));
        for expected in [20, 40, 80, 160, 300, 300] {
            assert_eq!(history.prolong(&settings, rng), secs(expected));
        }
        for _ in 0..100 {
            assert_eq!(history.prolong(&settings, rng), secs(300));
        }
    }

    #[test]
    fn a_base_time_of_work_forgets_one_doubling() {
        for (worked, expected) in [(0, 80), (9, 80), (10, 40), (25, 20), (30, 10), (9_999, 10)] {
            let settings = Settings::default();
            let mut history = History::default();
            let rng = &mut Constant(0);
            history.eject(&settings, 0, 10, secs(0), rng);
            history.prolong(&settings, rng);
            history.prolong(&settings, rng);
            history.bring_back(secs(100));
            let again = history.eject(&settings, 0, 10, secs(100 + worked), rng);
            assert_eq!(again, Some(secs(expected)), "after {worked} s");
        }
    }

    #[test]
    fn the_share_is_rounded_down() {
        for (share, live, most) in [
            (0.5, 0, 0),
            (0.5, 1, 0),
            (0.5, 2, 1),
            (0.5, 3, 1),
            (0.29, 100, 29),
            (0.0, 100, 0),
            (1.0, 3, 3),
        ] {
            let settings = Settings::default().max_share(share);
            assert_eq!(settings.most(live), most, "{share} of {live}");
        }
    }

    #[test]
    fn an_endless_time_is_a_year() {
        let settings = Settings::default()
            .base_time(Duration::MAX)
            .longest_time(Duration::MAX);
        assert_eq!(settings.wait(31, &mut Constant(0)), YEAR);
    }

    #[test]
    #[should_panic(expected = "1.5 is no share from 0 to 1")]
    fn a_share_above_1_is_refused() {
        let _ = Settings::default().max_share(1.5);
    }

    proptest! {
        #[test]
        fn the_time_is_bounded_and_jittered_below_its_nominal_length(
            times in 0_u32..100, chance: u64, base in 1_u64..1_000, longest in 1_u64..1_000,
        ) {
            let settings = Settings::default().base_time(secs(base)).longest_time(secs(longest));
            let wait = settings.wait(times, &mut Constant(chance));
            let nominal = (base as f64 * 2_f64.powi(times as i32)).min(longest as f64);
            prop_assert!(wait <= secs(longest));
            prop_assert!((nominal * 0.7499..=nominal * 1.0001).contains(&wait.as_secs_f64()));
        }

        #[test]
        fn never_more_than_the_share_is_ejected(
            live in 1_usize..30,
            share in 0.0_f64..=1.0,
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
        ) {
            let settings = Settings::default().max_share(share);
            let mut fleet = vec![(History::default(), false); live];
            for (now, (index, fails)) in steps.into_iter().enumerate() {
                let now = secs(now as u64);
                let ejected = fleet.iter().filter(|(_, ejected)| *ejected).count();
                let (history, out) = index.get_mut(&mut fleet);
                match (*out, fails) {
                    (false, true) => {
                        *out = history.eject(&settings, ejected, live, now, &mut Constant(1)).is_some();
                    }
                    (true, false) => {
                        history.bring_back(now);
                        *out = false;
                    }
                    _ => {}
                }
                let ejected = fleet.iter().filter(|(_, ejected)| *ejected).count();
                prop_assert!(ejected as f64 <= share * live as f64 + 1e-6);
            }
        }
    }
}
