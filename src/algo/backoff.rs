//! Waits between attempts.
//!
//! ```
//! use std::time::Duration;
//! use buttress::algo::backoff::{Backoff, Jitter};
//! use buttress::rng::ThreadRng;
//!
//! let restarts = Backoff::exponential(Duration::from_secs(1), 2.0)
//!     .cap(Duration::from_secs(60))
//!     .jitter(Jitter::Decorrelated);
//! let mut wait = Duration::ZERO;
//! for attempt in 1..=100 {
//!     wait = restarts.wait(attempt, wait, &mut ThreadRng);
//!     assert!((1..=60).contains(&wait.as_secs()));
//! }
//! ```

use std::time::Duration;

use super::Rng;

/// How long to wait after each failed attempt: constant or exponential, capped, with jitter.
///
/// The cap comes first and jitter only shortens, so no wait is longer than the cap. The default is exponential from
/// 100 ms, doubled each time, capped at 10 s, with full jitter: 100 ms is about what a peer needs for a fail-over or
/// a pause of its collector, and few callers wait for longer than 10 s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    multiplier: f64,
    cap: Duration,
    jitter: Jitter,
}

/// How much of a wait is left to chance, so that clients that failed together do not come back together.
///
/// The forms and their names are those of "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// None: the wait is exact. Clients that failed in step stay in step.
    None,
    /// Anything from nothing to the whole wait. The default: it spreads clients the most and costs the peer the
    /// fewest calls.
    #[default]
    Full,
    /// From half of the wait to the whole of it, where a wait of next to nothing makes no sense.
    Equal,
    /// From the base to three times the wait before, capped; the multiplier plays no part. For loops without end.
    Decorrelated,
}

impl Backoff {
    /// Waits `wait` each time, with full jitter until told otherwise.
    pub fn constant(wait: Duration) -> Self {
        Self {
            base: wait,
            multiplier: 1.0,
            cap: wait,
            jitter: Jitter::Full,
        }
    }

    /// Waits `base` at first and `multiplier` times as long each time after, up to 10 s (or `base`, if that is
    /// longer), with full jitter until told otherwise.
    ///
    /// # Panics
    ///
    /// If `multiplier` is below 1 or not finite.
    #[track_caller]
    pub fn exponential(base: Duration, multiplier: f64) -> Self {
        assert!(
            multiplier.is_finite() && multiplier >= 1.0,
            "the multiplier of a backoff must be at least 1, not {multiplier}"
        );
        Self {
            base,
            multiplier,
            cap: CAP.max(base),
            jitter: Jitter::Full,
        }
    }

    /// Waits no longer than `cap`, jitter included.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Leaves so much of each wait to chance.
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long to wait after attempt number `attempt`, 1 for the first, has failed.
    ///
    /// `previous` is what this returned last time, zero at first; only decorrelated jitter looks at it.
    pub fn wait(&self, attempt: u32, previous: Duration, rng: &mut impl Rng) -> Duration {
        let whole = self.grown(attempt);
        match self.jitter {
            Jitter::None => whole,
            Jitter::Full => share(whole, rng),
            Jitter::Equal => whole - share(whole / 2, rng),
            Jitter::Decorrelated => {
                // The cap bounds what is drawn from rather than what was drawn: else most waits would be the cap.
                let least = self.base.min(self.cap);
                let most = previous.max(least).saturating_mul(3).min(self.cap);
                least + share(most - least, rng)
            }
        }
    }

    fn grown(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.multiplier.powi(exponent);
        // Beyond what a duration holds lies infinity, or 0 × infinity where the base is zero.
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(if self.base.is_zero() {
                Duration::ZERO
            } else {
                Duration::MAX
            })
            // Past 2^51 s a double is short of nanoseconds.
            .max(self.base)
            .min(self.cap)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(BASE, 2.0)
    }
}

/// A part of `whole`, each as likely as the other.
fn share(whole: Duration, rng: &mut impl Rng) -> Duration {
    whole.mul_f64(rng.unit()).min(whole)
}

const BASE: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_oneof, proptest};

    use super::*;

    /// Draws the same number each time.
    struct Draw(f64);

    impl Rng for Draw {
        fn next_u64(&mut self) -> u64 {
            ((self.0 * (1_u64 << 53) as f64) as u64) << 11
        }
    }

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_without_jitter_follow_the_table() {
        let doubling = Backoff::exponential(ms(100), 2.0).cap(ms(1000));
        let odd = Duration::new(1 << 51, 1);
        let table = [
            (Backoff::constant(ms(500)), 1, ms(500)),
            (Backoff::constant(ms(500)), 7, ms(500)),
            (Backoff::constant(ms(0)), 7, ms(0)),
            (doubling, 0, ms(100)),
            (doubling, 1, ms(100)),
            (doubling, 2, ms(200)),
            (doubling, 4, ms(800)),
            (doubling, 5, ms(1000)),
            (doubling, u32::MAX, ms(1000)),
            (Backoff::constant(odd), 7, odd),
            (Backoff::exponential(ms(100), 1.5), 3, ms(225)),
            (Backoff::exponential(ms(0), 2.0), u32::MAX, ms(0)),
            (Backoff::exponential(ms(20_000), 2.0), 3, ms(20_000)),
            (Backoff::exponential(ms(300), 2.0).cap(ms(50)), 1, ms(50)),
            (
                Backoff::exponential(ms(86_400_000), 2.0).cap(Duration::MAX),
                1001,
                Duration::MAX,
            ),
        ];
        for (backoff, attempt, expected) in table {
            let wait = backoff
                .jitter(Jitter::None)
                .wait(attempt, ms(7), &mut Draw(0.3));
            assert_eq!(wait, expected, "{backoff:?} after attempt {attempt}");
        }
    }

    #[test]
    fn jitter_follows_the_table() {
        use Jitter::*;
        // Jitter, attempt, previous wait, draw, expected; base 100 ms, doubled, cap 1 s.
        let table = [
            (Full, 3, 0, 0.0, 0),
            (Full, 3, 0, 0.5, 200),
            (Full, 9, 0, 0.5, 500),
            (Equal, 3, 0, 0.0, 400),
            (Equal, 3, 0, 0.5, 300),
            (Equal, 9, 0, 0.0, 1000),
            (Decorrelated, 1, 0, 0.0, 100),
            (Decorrelated, 1, 0, 0.5, 200),
            (Decorrelated, 2, 200, 0.5, 350),
            (Decorrelated, 3, 500, 0.0, 100),
            (Decorrelated, 3, 900, 0.5, 550),
        ];
        for (jitter, attempt, previous, draw, expected) in table {
            let wait = Backoff::exponential(ms(100), 2.0)
                .cap(ms(1000))
                .jitter(jitter)
                .wait(attempt, ms(previous), &mut Draw(draw));
            assert_eq!(wait, ms(expected), "{jitter:?} after attempt {attempt}");
        }
    }

    #[test]
    fn the_default_has_jitter() {
        let first = |draw| Backoff::default().wait(1, Duration::ZERO, &mut Draw(draw));
        assert_eq!(first(0.0), ms(0));
        assert_eq!(first(0.5), ms(50));
    }

    #[test]
    #[should_panic(expected = "at least 1, not NaN")]
    fn a_multiplier_that_is_no_number_is_refused() {
        let _ = Backoff::exponential(ms(100), f64::NAN);
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
            (0..100_000_u64).prop_map(ms),
        ]
    }

    fn jitter() -> impl Strategy<Value = Jitter> {
        use Jitter::*;
        proptest::sample::select(vec![None, Full, Equal, Decorrelated])
    }

    proptest! {
        #[test]
        fn a_wait_without_jitter_is_the_base_multiplied_step_by_step_up_to_the_cap(
            base in 0..100_000_u64,
            multiplier in 1..5_u32,
            cap in 0..1_000_000_u64,
            attempt in 1..20_u32,
        ) {
            let mut expected = ms(base);
            for _ in 1..attempt {
                expected = expected.saturating_mul(multiplier);
            }
            let backoff = Backoff::exponential(ms(base), f64::from(multiplier))
                .cap(ms(cap))
                .jitter(Jitter::None);
            let wait = backoff.wait(attempt, ms(0), &mut Draw(0.5));
            // Floating seconds are exact to well below a microsecond here.
            prop_assert!(wait.abs_diff(expected.min(ms(cap))) < Duration::from_micros(1));
        }

        #[test]
        fn no_wait_is_longer_than_the_cap_whatever_the_settings(
            base in duration(),
            cap in duration(),
            previous in duration(),
            multiplier in prop_oneof![1.0..10.0, Just(f64::MAX)],
            attempt in prop_oneof![0..50_u32, any::<u32>()],
            jitter in jitter(),
            draw in prop_oneof![0.0..1.0, Just(ALMOST_ONE)],
        ) {
            let backoff = Backoff::exponential(base, multiplier).cap(cap).jitter(jitter);
            let wait = backoff.wait(attempt, previous, &mut Draw(draw));
            prop_assert!(wait <= cap);
            let least = match jitter {
                Jitter::Decorrelated => base.min(cap),
                Jitter::Equal => base.min(cap) / 2,
                Jitter::None => base.min(cap),
                Jitter::Full => Duration::ZERO,
            };
            prop_assert!(wait >= least);
        }
    }
}
