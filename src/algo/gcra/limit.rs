use std::time::Duration;

/// How many permits there are, and how they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub(super) permits: u32,
    pub(super) period: Duration,
    pub(super) burst: u32,
    pub(super) refill: Refill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refill {
    Smooth,
    Steps,
    WarmUp(Duration),
    Sliding,
}

impl Limit {
    /// `permits` in each `period`, evenly: 100 a second are one each 10 ms. That many may be taken at once after a
    /// pause, unless [`burst`](Self::burst) says otherwise.
    ///
    /// # Panics
    ///
    /// If `permits` is 0, or `period` is 0 or longer than ten years.
    #[track_caller]
    pub const fn new(permits: u32, period: Duration) -> Self {
        assert!(permits > 0, "a limit of no permits lets nothing pass");
        assert_span(period);
        Self {
            permits,
            period,
            burst: permits,
            refill: Refill::Smooth,
        }
    }

    /// At most so many at once. 1 paces: no two calls are closer than the limit's interval. Default the permits of
    /// one period: a limit of 100 a second is one that 100 calls in the same instant do not break.
    ///
    /// # Panics
    ///
    /// If `burst` is 0.
    #[must_use]
    #[track_caller]
    pub const fn burst(mut self, burst: u32) -> Self {
        assert!(burst > 0, "a burst of no permits lets nothing pass");
        self.burst = burst;
        self
    }

    /// The permits of a period come together, at its end, as they do from a peer that counts by the minute. The
    /// periods are counted from the bucket's beginning. Takes the place of a warm-up.
    #[must_use]
    pub const fn in_steps(mut self) -> Self {
        self.refill = Refill::Steps;
        self
    }

    /// After a pause of `span` or more, as at the beginning, the rate is a third and grows to the full one over
    /// `span`, and there is no burst but a single permit: for a peer whose caches and connections are cold. Takes the
    /// place of steps.
    ///
    /// # Panics
    ///
    /// If `span` is 0 or longer than ten years.
    #[must_use]
    #[track_caller]
    pub const fn warm_up(mut self, span: Duration) -> Self {
        assert_span(span);
        self.refill = Refill::WarmUp(span);
        self
    }

    /// No span of a period holds more than the permits, wherever it begins: a sliding log, which remembers each call of
    /// the last period and so is for small limits. A burst is as many as a period. Takes the place of steps and of a
    /// warm-up.
    #[must_use]
    pub const fn sliding(mut self) -> Self {
        self.burst = self.permits;
        self.refill = Refill::Sliding;
        self
    }

    /// The most permits that can be taken at once.
    pub const fn largest_burst(&self) -> u32 {
        self.burst
    }

    /// A permit, in the unit of a debt: nanoseconds of the period. Each nanosecond that goes by pays `permits` units,
    /// so that no rate needs rounding.
    pub(super) fn price(&self) -> u128 {
        self.period.as_nanos()
    }

    /// What need not be paid back before it is taken.
    pub(super) fn credit(&self) -> u128 {
        u128::from(self.burst) * self.price()
    }

    /// What a new bucket owes: a cold one has a single permit.
    pub(super) fn first_debt(&self) -> u128 {
        match self.refill {
            Refill::WarmUp(_) => self.credit() - self.price(),
            Refill::Smooth | Refill::Steps | Refill::Sliding => 0,
        }
    }
}

#[track_caller]
const fn assert_span(span: Duration) {
    assert!(
        !span.is_zero() && span.as_secs() <= LONGEST.as_secs(),
        "a span of a limit must be above 0 and at most ten years"
    );
}

/// Keeps the products of a debt within 128 bits.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
