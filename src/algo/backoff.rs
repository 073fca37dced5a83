//! Waits between attempts.
//!
//! ```
//! use std::time::Duration;
//! use buttress::algo::backoff::{Backoff, Jitter, Waits};
//! use buttress::rng::ThreadRng;
//!
//! let restarts = Backoff::exponential(Duration::from_secs(1), 2.0)
//!     .cap(Duration::from_secs(60))
//!     .jitter(Jitter::Decorrelated);
//! let mut waits = Waits::default();
//! for _ in 0..100 {
//!     let wait = restarts.next(&mut waits, &mut ThreadRng);
//!     assert!((1..=60).contains(&wait.as_secs()));
//! }
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::Rng;
use super::function::Function;

/// How long to wait after each failed attempt: constant, linear, exponential, a list or a function, capped, with jitter.
/// A cheap clone.
///
/// The cap comes first and jitter only shortens, so no wait is longer than the cap. The default is exponential from
/// 100 ms, doubled each time, capped at 10 s, with full jitter: 100 ms is about what a peer needs for a fail-over or
/// a pause of its collector, and few callers wait for longer than 10 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    growth: Growth,
    cap: Duration,
    jitter: Jitter,
}

#[derive(Clone, Debug, PartialEq)]
enum Growth {
    /// By the base each time.
    Step,
    /// So many times as long each time.
    Factor(f64),
    /// One after the other, and the last again and again.
    List(Arc<[Duration]>),
    Function(Function<Wait>),
}

type Wait = dyn Fn(u32, f64) -> Duration + Send + Sync;

/// The waits of one caller so far. A new one, none, for each call that is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    count: u32,
    last: Duration,
    total: Duration,
}

impl Waits {
    pub(crate) const NONE: Self = Self {
        count: 0,
        last: Duration::ZERO,
        total: Duration::ZERO,
    };
}

/// How much of a wait is left to chance, so that clients that failed together do not come back together.
///
/// The forms and their names are those of "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Jitter {
    /// None: the wait is exact. Clients that failed in step stay in step.
    None,
    /// Anything from nothing to the whole wait. The default: it spreads clients the most and costs the peer the
    /// fewest calls.
    #[default]
    Full,
    /// From half of the wait to the whole of it, where a wait of next to nothing makes no sense.
    Equal,
    /// Shortens the wait by up to this share of it, from 0 to 1: 1 is `Full`, 0.5 is `Equal`.
    Part(f64),
    /// From the base, which is the first wait, to three times the wait before, capped; what follows the base plays no
    /// part. For loops without end.
    Decorrelated,
    /// Around one, two, four times the base and so on, drawn so that a fleet that failed together spreads evenly over
    /// time instead of gathering at each doubling; the multiplier plays no part. For the few attempts of a call. The
    /// formula is George Polevoy's.
    Smooth,
}

impl Backoff {
    /// Waits `wait` each time, with full jitter until told otherwise.
    pub fn constant(wait: Duration) -> Self {
        Self {
            base: wait,
            growth: Growth::Factor(1.0),
            cap: wait,
            jitter: Jitter::Full,
        }
    }

    /// Waits `step` at first and `step` longer each time after, up to 10 s (or `step`, if that is longer), with full
    /// jitter until told otherwise.
    pub fn linear(step: Duration) -> Self {
        Self {
            base: step,
            growth: Growth::Step,
            cap: CAP.max(step),
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
            growth: Growth::Factor(multiplier),
            cap: CAP.max(base),
            jitter: Jitter::Full,
        }
    }

    /// Waits these one after the other, and the last again and again, with full jitter until told otherwise.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[track_caller]
    pub fn list(waits: impl IntoIterator<Item = Duration>) -> Self {
        let waits: Arc<[_]> = waits.into_iter().collect();
        assert!(
            !waits.is_empty(),
            "a backoff cannot be made of no waits at all"
        );
        Self {
            base: waits[0],
            growth: Growth::List(waits),
            cap: Duration::MAX,
            jitter: Jitter::Full,
        }
    }

    /// Waits what `wait` says of the number of attempts that have failed, from 1 on, and of a draw from `[0, 1)`: chance
    /// is its own, so there is no jitter until told otherwise.
    ///
    /// ```
    /// use std::time::Duration;
    /// use buttress::algo::backoff::Backoff;
    ///
    /// // Around 1 s, 2 s, 3 s, a quarter more or less.
    /// let around = Backoff::from_fn(|failed, draw| {
    ///     Duration::from_secs(failed.into()).mul_f64(0.75 + draw / 2.0)
    /// });
    /// ```
    pub fn from_fn(wait: impl Fn(u32, f64) -> Duration + Send + Sync + 'static) -> Self {
        Self {
            base: wait(1, 0.5),
            growth: Growth::Function(Function(Arc::new(wait))),
            cap: Duration::MAX,
            jitter: Jitter::None,
        }
    }

    /// Waits no longer than `cap`, jitter included.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Leaves so much of each wait to chance.
    ///
    /// # Panics
    ///
    /// If it is a [`Part`](Jitter::Part) that is not from 0 to 1.
    #[must_use]
    #[track_caller]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        if let Jitter::Part(share) = jitter {
            assert!(
                (0.0..=1.0).contains(&share),
                "a part of a wait must be from 0 to 1, not {share}"
            );
        }
        self.jitter = jitter;
        self
    }

    /// How long to wait after one more failed attempt. `waits` is what this was given for those before.
    pub fn next(&self, waits: &mut Waits, rng: &mut impl Rng) -> Duration {
        let whole = self.grown(waits.count, rng).min(self.cap);
        let wait = match self.jitter {
            Jitter::None => whole,
            Jitter::Full => share(whole, rng),
            Jitter::Equal => whole - share(whole / 2, rng),
            Jitter::Part(part) => whole - share(whole.mul_f64(part).min(whole), rng),
            Jitter::Decorrelated => {
                let least = self.base.min(self.cap);
                // The cap bounds what is drawn from rather than what was drawn: else most waits would be the cap.
                let most = waits.last.max(least).saturating_mul(3).min(self.cap);
                least + share(most - least, rng)
            }
            Jitter::Smooth => self.smooth(waits, rng).min(self.cap),
        };
        waits.count = waits.count.saturating_add(1);
        waits.last = wait;
        waits.total = waits.total.saturating_add(wait);
        wait
    }

    /// The wait after `count` others.
    fn grown(&self, count: u32, rng: &mut impl Rng) -> Duration {
        let seconds = self.base.as_secs_f64();
        let seconds = match &self.growth {
            Growth::Step => seconds * (f64::from(count) + 1.0),
            Growth::Factor(factor) => {
                seconds * factor.powi(i32::try_from(count).unwrap_or(i32::MAX))
            }
            Growth::List(waits) => return waits[(count as usize).min(waits.len() - 1)],
            Growth::Function(function) => return function(count.saturating_add(1), rng.unit()),
        };
        // Past 2^51 s a double is short of nanoseconds.
        self.duration(seconds).max(self.base)
    }

    /// The waits together come to a point on a curve that is drawn within the step of this attempt.
    fn smooth(&self, waits: &Waits, rng: &mut impl Rng) -> Duration {
        let time = f64::from(waits.count) + rng.unit();
        let curve = time.exp2() * (4.0 * time).sqrt().tanh();
        self.duration(self.base.as_secs_f64() / MEDIAN * curve)
            .saturating_sub(waits.total)
    }

    /// Beyond what a duration holds lies infinity, or 0 × infinity where the base is zero.
    fn duration(&self, seconds: f64) -> Duration {
        Duration::try_from_secs_f64(seconds).unwrap_or(if self.base.is_zero() {
            Duration::ZERO
        } else {
            Duration::MAX
        })
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
/// What the smooth curve is divided by, so that the median of the first wait is about the base.
const MEDIAN: f64 = 1.4;

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

    /// Before the wait after attempt number `attempt`, where the last one was `last`.
    fn after(attempt: u32, last: Duration) -> Waits {
        Waits {
            count: attempt.saturating_sub(1),
            last,
            total: last,
        }
    }

    #[test]
    fn waits_without_jitter_follow_the_table() {
        let doubling = Backoff::exponential(ms(100), 2.0).cap(ms(1000));
        let list = Backoff::list([ms(5), ms(500), ms(50)]);
        let odd = Duration::new(1 << 51, 1);
        let table = [
            (Backoff::constant(ms(500)), 1, ms(500)),
            (Backoff::constant(ms(500)), 7, ms(500)),
            (Backoff::constant(ms(0)), 7, ms(0)),
            (doubling.clone(), 1, ms(100)),
            (doubling.clone(), 2, ms(200)),
            (doubling.clone(), 4, ms(800)),
            (doubling.clone(), 5, ms(1000)),
            (doubling, u32::MAX, ms(1000)),
            (Backoff::constant(odd), 7, odd),
            (Backoff::exponential(ms(100), 1.5), 3, ms(225)),
            (Backoff::exponential(ms(0), 2.0), u32::MAX, ms(0)),
            (Backoff::linear(ms(100)), 1, ms(100)),
            (Backoff::linear(ms(100)), 3, ms(300)),
            (Backoff::linear(ms(100)), u32::MAX, ms(10_000)),
            (Backoff::linear(ms(0)), 3, ms(0)),
            (Backoff::exponential(ms(20_000), 2.0), 3, ms(20_000)),
            (Backoff::exponential(ms(300), 2.0).cap(ms(50)), 1, ms(50)),
            (list.clone(), 1, ms(5)),
            (list.clone(), 2, ms(500)),
            (list.clone(), u32::MAX, ms(50)),
            (list.cap(ms(100)), 2, ms(100)),
            (
                Backoff::from_fn(|n, draw| ms(10).mul_f64(f64::from(n) + draw)),
                3,
                ms(33),
            ),
            (
                Backoff::exponential(ms(86_400_000), 2.0).cap(Duration::MAX),
                1001,
                Duration::MAX,
            ),
        ];
        for (backoff, attempt, expected) in table {
            let backoff = backoff.jitter(Jitter::None);
            let wait = backoff.next(&mut after(attempt, ms(7)), &mut Draw(0.3));
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
            (Part(0.0), 3, 0, 0.5, 400),
            (Part(0.25), 3, 0, 0.0, 400),
            (Part(0.25), 3, 0, 0.5, 350),
            (Part(1.0), 3, 0, 0.5, 200),
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
                .next(&mut after(attempt, ms(previous)), &mut Draw(draw));
            assert_eq!(wait, ms(expected), "{jitter:?} after attempt {attempt}");
        }
    }

    #[test]
    fn the_default_has_jitter() {
        let first = |draw| Backoff::default().next(&mut Waits::default(), &mut Draw(draw));
        assert_eq!(first(0.0), ms(0));
        assert_eq!(first(0.5), ms(50));
    }

    #[test]
    fn smooth_waits_lie_on_their_curve() {
        let backoff = Backoff::exponential(ms(1000), 2.0)
            .cap(ms(60_000))
            .jitter(Jitter::Smooth);
        let table = [
            (0.0, [0.0, 1377.182, 1460.067, 2865.85]),
            (0.5, [897.405, 1093.004, 2035.748, 4045.979]),
        ];
        for (draw, expected) in table {
            let mut waits = Waits::default();
            for millis in expected {
                let wait = backoff.next(&mut waits, &mut Draw(draw));
                assert!((wait.as_secs_f64() * 1e3 - millis).abs() < 0.01, "{wait:?}");
            }
        }
    }

    #[test]
    fn a_list_and_a_function_take_jitter_too() {
        use Jitter::*;
        // Jitter, draw, expected of a list and of a function, after a wait of 200 ms.
        let table = [
            (Full, 0.5, [20, 45]),
            (Equal, 0.5, [30, 67]),
            (Part(0.5), 0.0, [40, 80]),
            (Decorrelated, 0.0, [10, 45]),
            (Decorrelated, 0.5, [305, 322]),
        ];
        for (jitter, draw, expected) in table {
            let list = Backoff::list([ms(10), ms(40)]);
            let function =
                Backoff::from_fn(|n, draw| ms(u64::from(n) * 40).mul_f64(1.0 + draw / 4.0));
            for (backoff, expected) in [list, function].into_iter().zip(expected) {
                let wait = backoff
                    .jitter(jitter)
                    .next(&mut after(2, ms(200)), &mut Draw(draw));
                assert_eq!(wait.as_millis(), expected, "{jitter:?}, {draw}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "no waits at all")]
    fn an_empty_list_is_refused() {
        let _ = Backoff::list([]);
    }

    #[test]
    #[should_panic(expected = "from 0 to 1, not 1.5")]
    fn a_part_that_is_more_than_the_whole_is_refused() {
        let _ = Backoff::default().jitter(Jitter::Part(1.5));
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
        proptest::sample::select(vec![None, Full, Equal, Part(0.3), Decorrelated, Smooth])
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
            let wait = backoff.next(&mut after(attempt, ms(0)), &mut Draw(0.5));
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
            let wait = backoff.next(&mut after(attempt, previous), &mut Draw(draw));
            prop_assert!(wait <= cap);
            let least = match jitter {
                Jitter::Decorrelated => base.min(cap),
                Jitter::Equal => base.min(cap) / 2,
                Jitter::None => base.min(cap),
                Jitter::Part(_) => base.min(cap).mul_f64(0.699),
                Jitter::Full | Jitter::Smooth => Duration::ZERO,
            };
            prop_assert!(wait >= least);
        }
    }
}
