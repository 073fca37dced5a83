use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::limit::{LONGEST, Limit};

/// The calls of the last period, and those that are to go: when, and how many permits each took.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(VecDeque<(Instant, u32)>);

impl Log {
    pub(super) fn push(&mut self, goes: Instant, permits: u32) {
        self.0.push_back((goes, permits));
    }

    /// When the last of them goes.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.back().map(|it| it.0)
    }

    pub(super) fn remove(&mut self, goes: Instant, permits: u32) -> bool {
        let place = self.0.iter().rposition(|it| *it == (goes, permits));
        place.is_some_and(|place| self.0.remove(place).is_some())
    }

    /// Forgets what is a period ago, and says how many permits that were.
    pub(super) fn forget(&mut self, now: Instant, period: Duration) -> u64 {
        let mut paid = 0;
        while let Some(&(goes, permits)) = self.0.front() {
            if goes + period > now {
                break;
            }
            self.0.pop_front();
            paid += u64::from(permits);
        }
        paid
    }

    /// When the first `permits` are paid. Those that are not in the log go as soon as the limit lets them.
    pub(super) fn paid(&self, permits: u64, limit: &Limit, now: Instant) -> Instant {
        let known: u64 = self.0.iter().map(|it| u64::from(it.1)).sum();
        let most = u64::from(limit.burst);
        // Each that is not known goes when the one a limit before it is paid.
        let rounds = permits.saturating_sub(known.max(most)).div_ceil(most);
        let mut left = permits - rounds * most;
        let mut entries = self.0.iter().copied();
        let goes = entries.find_map(|(goes, permits)| {
            let last = left <= u64::from(permits);
            left = left.saturating_sub(permits.into());
            last.then_some(goes)
        });
        let wait = limit.period.as_nanos() * u128::from(rounds + 1);
        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        let from = goes.unwrap_or(now);
        from.checked_add(wait).unwrap_or(now + LONGEST)
    }
}
