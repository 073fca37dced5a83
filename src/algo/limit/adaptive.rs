use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::correlation::Together;
use super::headroom::{Headroom, Peaks};
use super::{
    Average, BOUNDS, Bounds, Correlation, Limit, Median, Sample, SampleWindow, assert_ratio, log10,
};

/// Compares a high quantile of recent latency with its baseline, and looks at how both latency and throughput go with
/// the number of calls under way. Moves once a window, by the logarithm of the limit.
///
/// As in failsafe-go, `adaptivelimiter`: a queue is estimated as [`Vegas`](super::Vegas) does, from an average that
/// follows slowly instead of the least latency; where the limit is full, latency that rises with the calls under way
/// and throughput that does not are signs of overload too. The limit stays below a multiple of the calls under way, so
/// that an idle client does not inflate it. Unlike there, a drop shrinks the limit at once, unless
/// [`backoff`](Self::backoff) is 1.
#[derive(Clone, Debug)]
pub struct Adaptive {
    limit: f64,
    bounds: Bounds,
    backoff: f64,
    headroom: Headroom,
    peaks: Peaks,
    least: Duration,
    longest: Duration,
    min_samples: u32,
    quantile: f64,
    window: SampleWindow,
    opened: Option<Instant>,
    closes: Option<Instant>,
    median: Median,
    recent: Average,
    baseline: Average,
    throughputs: Correlation,
    latencies: Correlation,
}

impl Adaptive {
    /// Starts at `initial`, or at the nearest of its bounds, which are 1 to 1000.
    pub fn new(initial: usize) -> Self {
        Self {
            limit: BOUNDS.clamp(initial as f64),
            bounds: BOUNDS,
            backoff: 0.9,
            headroom: Headroom {
                factor: 5.0,
                decay: 0.0,
                least: 1.0,
            },
            peaks: Peaks::default(),
            least: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            min_samples: 50,
            quantile: 0.9,
            window: SampleWindow::default(),
            opened: None,
            closes: None,
            median: Median::new(SMOOTHED as usize),
            recent: Average::new(SMOOTHED, WARM_UP),
            baseline: Average::new(10, WARM_UP),
            throughputs: Correlation::new(50, WARM_UP as usize),
            latencies: Correlation::new(50, WARM_UP as usize),
        }
    }

    /// Stays within these bounds.
    ///
    /// # Panics
    ///
    /// If they begin at 0 or are empty.
    #[must_use]
    #[track_caller]
    pub fn within(mut self, range: RangeInclusive<usize>) -> Self {
        self.bounds = Bounds::new(range);
        self.limit = self.bounds.clamp(self.limit);
        self
    }

    /// Closes a window after twice its shortest latency, within `least` and `longest`, and not before it holds
    /// `min_samples` calls. Defaults 1 s, 30 s and 50.
    ///
    /// # Panics
    ///
    /// If `least` is above `longest`.
    #[must_use]
    #[track_caller]
    pub fn window(mut self, least: Duration, longest: Duration, min_samples: u32) -> Self {
        assert!(
            least <= longest,
            "no window is between {least:?} and {longest:?}"
        );
        (self.least, self.longest, self.min_samples) = (least, longest, min_samples);
        self
    }

    /// The share of the calls of a window, from 0 to 1, whose latency is looked at. Default 0.9.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn quantile(mut self, share: f64) -> Self {
        assert_ratio("a quantile", share);
        self.quantile = share;
        self
    }

    /// Averages the baseline over about so many windows. Default 10.
    #[must_use]
    pub fn baseline_age(mut self, windows: u32) -> Self {
        self.baseline = Average::new(windows, WARM_UP);
        self
    }

    /// Begins with this latency as the baseline. Else it is the mean of the first ten windows, whatever their load.
    #[must_use]
    pub fn baseline(mut self, rtt: Duration) -> Self {
        self.baseline.set(rtt.as_secs_f64());
        self
    }

    /// Looks for correlations over so many windows. Default 50.
    #[must_use]
    pub fn correlation_window(mut self, windows: usize) -> Self {
        self.throughputs = Correlation::new(windows, WARM_UP as usize);
        self.latencies = self.throughputs.clone();
        self
    }

    /// Stays below so many times the calls under way. Default 5: room for a burst.
    ///
    /// # Panics
    ///
    /// If it is below 1.
    #[must_use]
    #[track_caller]
    pub fn headroom(mut self, factor: f64) -> Self {
        assert!(
            factor >= 1.0,
            "a limit below the calls under way cannot grow"
        );
        self.headroom.factor = factor;
        self
    }

    /// Takes `decay` off the headroom for each tenfold of calls under way, down to `least`. Default: none.
    ///
    /// # Panics
    ///
    /// If `decay` is negative, or `least` is below 1.
    #[must_use]
    #[track_caller]
    pub fn headroom_decay(mut self, decay: f64, least: f64) -> Self {
        assert!(decay >= 0.0, "a decay of {decay} grows");
        assert!(
            least >= 1.0,
            "a limit below the calls under way cannot grow"
        );
        (self.headroom.decay, self.headroom.least) = (decay, least);
        self
    }

    /// Counts as the calls under way the most of them within this time. Default: those of the last window alone.
    #[must_use]
    pub fn headroom_over(mut self, time: Duration) -> Self {
        self.peaks.memory = time;
        self
    }

    /// Keeps this share of the limit after a drop. Default 0.9; 1 gives drops no say.
    ///
    /// # Panics
    ///
    /// If it is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn backoff(mut self, ratio: f64) -> Self {
        assert_ratio("a share", ratio);
        self.backoff = ratio;
        self
    }

    /// The highest limit that so many calls under way allow.
    pub fn max_limit(&self, in_flight: usize) -> f64 {
        self.headroom.above(in_flight)
    }

    fn close_window(&mut self, now: Instant) {
        let rtt = self.window.quantile(self.quantile).as_secs_f64();
        let rtt = self.recent.add(self.median.add(rtt.max(f64::MIN_POSITIVE)));
        let in_flight = self.window.most_in_flight();
        let peak = self.peaks.add(in_flight, now);
        self.limit = self.next(rtt, in_flight, self.headroom.above(peak));
        let length = self.window.least().saturating_mul(2).max(self.least);
        self.closes = Some(now + length.min(self.longest));
        self.window.clear();
    }

    fn next(&mut self, rtt: f64, in_flight: usize, max: f64) -> f64 {
        let baseline = self.baseline.add(rtt);
        let in_flight = in_flight as f64;
        let throughput = self.throughputs.take(in_flight, in_flight / rtt);
        let latency = self.latencies.take(in_flight, rtt);

        let log = log10(self.limit as usize);
        let step = log as f64;
        let queue = (self.limit * (1.0 - baseline / rtt)).ceil();
        let full = in_flight >= self.limit;
        let next = if queue > 6.0 * step || full && overloaded(throughput, latency.coefficient) {
            self.limit - step
        } else if queue < 3.0 * step {
            self.limit + step
        } else {
            self.limit
        };
        let next = match () {
            () if next <= max => next,
            // Little by little, for the calls under way may come back.
            () if self.limit > max => self.limit - step,
            () => max,
        };
        self.bounds.clamp(next)
    }
}

impl Limit for Adaptive {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        if !sample.dropped {
            self.window.add(sample.rtt, sample.in_flight, false);
        } else if self.backoff < 1.0 {
            self.limit = self.bounds.clamp(self.limit * self.backoff);
        }
        let opened = *self.opened.get_or_insert(sample.start);
        let closed = now > self.closes.unwrap_or(opened);
        if closed && self.window.count() >= self.min_samples.max(1) {
            self.close_window(now);
        }
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// More calls bring no more answers: fewer even, or as many and later.
fn overloaded(throughput: Together, latency: f64) -> bool {
    let no_gain = throughput.coefficient < 0.3 || throughput.variation < 0.2;
    throughput.coefficient < 0.0 || no_gain && latency > 0.5
}

const WARM_UP: u32 = 10;
const SMOOTHED: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A limit in which each sample closes a window.
    fn each_closes() -> Adaptive {
        Adaptive::new(20)
            .within(1..=200)
            .window(SECOND, SECOND, 1)
            .baseline(SECOND)
    }

    /// Latency in ms, in flight, and the limit after it.
    fn runs(mut limit: Adaptive, steps: &[(u64, usize, usize)]) {
        let mut now = crate::clock::now();
        for &(rtt, in_flight, expected) in steps {
            now += 2 * SECOND;
            let rtt = Duration::from_millis(rtt);
            let sample = Sample {
                start: now - rtt,
                rtt,
                in_flight,
                dropped: false,
            };
            limit.on_sample(sample, now);
            assert_eq!(limit.limit(), expected, "{rtt:?} {in_flight}");
        }
    }

    #[test]
    fn it_moves_by_the_queue_that_it_estimates() {
        runs(each_closes(), &[(1000, 5, 21), (500, 5, 22)]);
        runs(each_closes(), &[(1300, 10, 20), (1300, 10, 20)]);
        runs(each_closes(), &[(2000, 10, 19), (2000, 10, 18)]);
        runs(
            each_closes().within(1..=21),
            &[(1000, 20, 21), (1000, 20, 21)],
        );
    }

    #[test]
    fn it_stays_below_a_multiple_of_the_calls_under_way() {
        runs(
            each_closes(),
            &[
                (1000, 1, 19),
                (1000, 1, 18),
                (1000, 4, 19),
                (1000, 4, 20),
                (1000, 4, 20),
            ],
        );
        let remembers = each_closes().headroom_over(5 * SECOND);
        runs(
            remembers,
            &[(1000, 9, 21), (1000, 1, 22), (1000, 1, 23), (1000, 1, 22)],
        );

        let decays = Adaptive::new(20).headroom_decay(1.0, 2.5);
        for (in_flight, expected) in [(1, 5.0), (10, 40.0), (100, 300.0), (1000, 2500.0), (0, 0.0)]
        {
            assert!(
                (decays.max_limit(in_flight) - expected).abs() < 1e-6,
                "{in_flight}"
            );
        }
    }

    #[test]
    fn calls_that_only_add_latency_shrink_it_although_the_baseline_follows() {
        // 40 at once at 20 ms each; the baseline is learnt, and follows.
        let mut limit = Adaptive::new(20).window(SECOND, SECOND, 1);
        let mut now = crate::clock::now();
        let mut most = 0;
        for _ in 0..2_000 {
            now += 2 * SECOND;
            let in_flight = limit.limit();
            let rtt = Duration::from_millis(20 * in_flight.max(40) as u64 / 40);
            limit.on_sample(
                Sample {
                    start: now - rtt,
                    rtt,
                    in_flight,
                    dropped: false,
                },
                now,
            );
            most = most.max(limit.limit());
        }
        assert!((40..=80).contains(&most), "{most}");
    }
}
