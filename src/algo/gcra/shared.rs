#[cfg(feature = "redis")]
use super::limit::Refill;
use super::limit::{LONGEST, Limit};

/// A limit as it is kept outside of one process: its part for each, and its debts in the units of a store.
impl Limit {
    /// One of `processes` equal parts of the limit: its rate and its burst divided, though at least one permit at once.
    ///
    /// # Panics
    ///
    /// If `processes` is 0.
    #[must_use]
    #[track_caller]
    pub fn share(mut self, processes: u32) -> Self {
        assert!(processes > 0, "a limit that no process shares is no limit");
        self.period = self.period.saturating_mul(processes).min(LONGEST);
        self.burst = (self.burst / processes).max(1);
        self
    }

    /// Whether its permits come evenly: a debt then says all that there is to know.
    #[cfg(feature = "redis")]
    pub(crate) fn is_smooth(&self) -> bool {
        self.refill == Refill::Smooth
    }

    /// Of how many parts a microsecond consists, so that each debt is a whole number of them.
    #[cfg(feature = "redis")]
    pub(crate) fn parts(&self) -> u64 {
        1_000 * u64::from(self.permits)
    }

    /// The time that `permits` are worth: whole microseconds, and parts of the next. Both, and their sums, are numbers
    /// that a double holds, as long as the time is no more than a hundred years.
    #[cfg(feature = "redis")]
    pub(crate) fn worth(&self, permits: u32) -> (u128, u128) {
        let units = u128::from(permits) * self.price();
        let parts = u128::from(self.parts());
        (units / parts, units % parts)
    }

    /// The period in nanoseconds.
    #[cfg(feature = "redis")]
    pub(crate) fn period_nanos(&self) -> u128 {
        self.period.as_nanos()
    }
}
