use std::time::Duration;

use super::Decision;
use crate::algo::Rng;
use crate::algo::backoff::{Backoff, Waits};
use crate::budget::{Account, RetryBudget};
use crate::observe::GiveUp;

/// What a [`RetryLayer`](super::RetryLayer) is told, its rules apart.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) limit: Option<Duration>,
    pub(super) longest_hint: Duration,
    pub(super) hint_spread: f64,
    pub(crate) account: Account,
}

impl Settings {
    pub(super) fn new(attempts: u32) -> Self {
        Self {
            attempts,
            backoff: Backoff::default(),
            limit: None,
            longest_hint: LONGEST_HINT,
            hint_spread: HINT_SPREAD,
            account: Account::new("retry", RetryBudget::default()),
        }
    }

    /// Whether there is nothing to do for a call before its first attempt ends.
    #[inline(always)]
    pub(crate) fn starts_with_nothing(&self) -> bool {
        self.attempts > 1 && self.account.counts_the_past()
    }

    /// How long to wait before another attempt that must begin within `left`; else why there is none.
    pub(super) fn wait(
        &self,
        decision: Decision,
        waits: &mut Waits,
        left: Duration,
        rng: &mut impl Rng,
    ) -> Result<Duration, GiveUp> {
        let (wait, hint) = match decision {
            // It is not asked.
            Decision::Done => Default::default(),
            Decision::RetryIn(wait) => (wait, Duration::ZERO),
            Decision::Retry { after } => {
                let hint = after.unwrap_or_default();
                (self.backoff.next(waits, rng), hint)
            }
        };
        if left.is_zero() || hint > left {
            return Err(GiveUp::OutOfTime);
        }
        if hint > self.longest_hint {
            return Err(GiveUp::HintTooLong);
        }
        // A hint is all the same to all who got it.
        let spread = match hint.is_zero() {
            true => hint,
            false => hint.mul_f64(self.hint_spread * rng.unit()),
        };
        Ok(wait.max(hint.saturating_add(spread)).min(left))
    }
}

const LONGEST_HINT: Duration = Duration::from_secs(10);
/// A fleet that was told to come back in 10 s comes back over 2 s.
const HINT_SPREAD: f64 = 0.2;
