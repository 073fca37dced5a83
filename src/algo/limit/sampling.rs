use std::time::{Duration, Instant};

use super::{Limit, Sample};

/// The calls of one window.
///
/// The mean is over all of them, a quantile over the last 256, so that its memory is bounded.
#[derive(Clone, Debug, Default)]
pub struct SampleWindow {
    rtts: Vec<Duration>,
    count: u32,
    sum: Duration,
    least: Duration,
    most_in_flight: usize,
    dropped: bool,
}

impl SampleWindow {
    /// Takes in a call.
    pub fn add(&mut self, rtt: Duration, in_flight: usize, dropped: bool) {
        let slot = self.count as usize % KEPT;
        match self.rtts.get_mut(slot) {
            Some(oldest) => *oldest = rtt,
            None => self.rtts.push(rtt),
        }
        self.least = if self.count == 0 {
            rtt
        } else {
            self.least.min(rtt)
        };
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(rtt);
        self.most_in_flight = self.most_in_flight.max(in_flight);
        self.dropped |= dropped;
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The mean latency; zero without calls.
    pub fn mean(&self) -> Duration {
        self.sum / self.count.max(1)
    }

    /// The latency that this share of the calls, from 0 to 1, did not exceed; zero without calls.
    pub fn quantile(&mut self, share: f64) -> Duration {
        if self.rtts.is_empty() {
            return Duration::ZERO;
        }
        let rank = (self.rtts.len() as f64 * share).round() as usize;
        let place = rank.clamp(1, self.rtts.len()) - 1;
        *self.rtts.select_nth_unstable(place).1
    }

    /// The shortest latency; zero without calls.
    pub fn least(&self) -> Duration {
        self.least
    }

    /// The most calls under way that one of them met.
    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        let mut rtts = std::mem::take(&mut self.rtts);
        rtts.clear();
        *self = Self {
            rtts,
            ..Self::default()
        };
    }
}

/// Which latency stands for a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    /// The mean.
    Average,
    /// That which this share of the calls, from 0 to 1, did not exceed.
    Percentile(f64),
}

/// Gives a limit one sample for each window of calls: their latency in one figure, the most calls under way, and whether
/// any was dropped.
///
/// As in Netflix' concurrency-limits, `WindowedLimit`: a window closes with the first call that ends after it, and one
/// of too few calls is thrown away. So is the first, which opens with the first call.
#[derive(Clone, Debug)]
pub struct Windowed<L> {
    inner: L,
    least: Duration,
    longest: Duration,
    min_samples: u32,
    min_rtt: Duration,
    aggregate: Aggregate,
    window: SampleWindow,
    closes: Option<Instant>,
}

impl<L> Windowed<L> {
    /// Windows of one second, of at least 10 calls of at least 100 µs, that stand for their mean.
    pub fn new(limit: L) -> Self {
        Self {
            inner: limit,
            least: Duration::from_secs(1),
            longest: Duration::from_secs(1),
            min_samples: 10,
            min_rtt: Duration::from_micros(100),
            aggregate: Aggregate::Average,
            window: SampleWindow::default(),
            closes: None,
        }
    }

    /// Windows of twice the shortest latency in them, and of at least `least` and at most `longest`.
    ///
    /// # Panics
    ///
    /// If `least` is above `longest`.
    #[must_use]
    #[track_caller]
    pub fn length(mut self, least: Duration, longest: Duration) -> Self {
        assert!(
            least <= longest,
            "no window is between {least:?} and {longest:?}"
        );
        (self.least, self.longest) = (least, longest);
        self
    }

    /// Throws away windows of fewer calls than this.
    #[must_use]
    pub fn min_samples(mut self, calls: u32) -> Self {
        self.min_samples = calls;
        self
    }

    /// Leaves out calls that took less than this: they hardly reached the peer.
    #[must_use]
    pub fn min_rtt(mut self, rtt: Duration) -> Self {
        self.min_rtt = rtt;
        self
    }

    /// Says which latency stands for a window.
    #[must_use]
    pub fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }
}

impl<L: Limit> Limit for Windowed<L> {
    fn on_sample(&mut self, sample: Sample, now: Instant) {
        if sample.rtt < self.min_rtt {
            return;
        }
        self.window
            .add(sample.rtt, sample.in_flight, sample.dropped);
        if self.closes.is_some_and(|at| now <= at) {
            return;
        }
        let length = self.window.least().saturating_mul(2).max(self.least);
        self.closes = Some(now + length.min(self.longest));
        if self.window.count() >= self.min_samples {
            let rtt = match self.aggregate {
                Aggregate::Average => self.window.mean(),
                Aggregate::Percentile(share) => self.window.quantile(share),
            };
            let of_window = Sample {
                rtt,
                in_flight: self.window.most_in_flight(),
                dropped: self.window.dropped,
                ..sample
            };
            self.inner.on_sample(of_window, now);
        }
        self.window.clear();
    }

    fn limit(&self) -> usize {
        self.inner.limit()
    }
}

const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Aimd;
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_limit_moves_once_a_window() {
        let start = crate::clock::now();
        let mut limit = Windowed::new(Aimd::new(20));
        for at in (0..=1_300).step_by(100) {
            let start = start + ms(at);
            let sample = Sample {
                start,
                rtt: ms(10),
                in_flight: 20,
                dropped: false,
            };
            limit.on_sample(sample, start + ms(10));
            assert_eq!(limit.limit(), if at < 1_100 { 20 } else { 21 }, "{at}");
        }
    }

    #[test]
    fn a_window_of_drops_is_one_drop() {
        let start = crate::clock::now();
        let mut limit = Windowed::new(Aimd::new(100)).min_samples(1);
        for at in 0..2_000 {
            let start = start + ms(at);
            let sample = Sample {
                start,
                rtt: ms(10),
                in_flight: 100,
                dropped: at % 3 == 0,
            };
            limit.on_sample(sample, start + ms(10));
        }
        // The first window holds the first call alone.
        assert_eq!(limit.limit(), 81);
    }

    proptest! {
        #[test]
        fn a_window_is_the_mean_and_the_quantile_of_a_list(
            rtts in prop::collection::vec(0_u64..10_000, 1..600), share in 0.0_f64..=1.0,
        ) {
            let mut window = SampleWindow::default();
            for &rtt in &rtts {
                window.add(ms(rtt), 1, false);
            }
            let all: Duration = rtts.iter().map(|&rtt| ms(rtt)).sum();
            prop_assert_eq!(window.mean(), all / rtts.len() as u32);
            prop_assert_eq!(window.least(), ms(*rtts.iter().min().unwrap()));
            let mut last = rtts[rtts.len().saturating_sub(256)..].to_vec();
            last.sort_unstable();
            let rank = (last.len() as f64 * share).round() as usize;
            prop_assert_eq!(window.quantile(share), ms(last[rank.max(1) - 1]));
        }
    }
}
