use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::place::Waiter;
use super::sync::Arc;
use crate::algo::codel::CoDel;
use crate::error::Reason;

/// Whom of those who wait a free slot goes to, and who gives way when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Who has waited longest; a full queue refuses the newcomer. Nobody is overtaken.
    #[default]
    OldestFirst,
    /// Who came last; a full queue refuses the newcomer. Under overload somebody is served in time, where otherwise
    /// everybody is served late.
    NewestFirst,
    /// Who came last; a full queue refuses who has waited longest, for that caller is the likeliest to give up anyway.
    NewestFirstDropOldest,
    /// Who has waited longest; but while the queue stands, whoever waited more than twice the target is refused.
    CoDel {
        /// How long everybody may have to wait. 5 ms is usual within one data centre.
        target: Duration,
        /// How long a burst may take to be worked off. 100 ms is usual.
        interval: Duration,
    },
}

/// Those who wait, the next in front. Higher levels stand in front of lower ones.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Arc<Waiter>>,
    order: Order,
    codel: Option<CoDel>,
}

impl Line {
    /// Whoever waits already keeps its place.
    pub(super) fn reorder(&mut self, order: Order) {
        self.order = order;
        self.codel = match order {
            Order::CoDel { target, interval } => Some(CoDel::new(target, interval)),
            _ => None,
        };
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The level of the next.
    pub(super) fn level(&self) -> Option<u8> {
        self.queue.front().map(|waiter| waiter.level)
    }

    pub(super) fn push(&mut self, waiter: Arc<Waiter>) {
        let level = waiter.level;
        let place = self.queue.partition_point(|other| match self.order {
            Order::NewestFirst | Order::NewestFirstDropOldest => other.level > level,
            Order::OldestFirst | Order::CoDel { .. } => other.level >= level,
        });
        self.queue.insert(place, waiter);
    }

    /// Takes out who has to give way to a newcomer of this level when the line is full, if anybody has.
    pub(super) fn displace(&mut self, level: u8) -> Option<Arc<Waiter>> {
        let last = self.queue.back()?.level;
        let gives_way = last < level || last == level && self.order == Order::NewestFirstDropOldest;
        gives_way.then(|| self.queue.pop_back()).flatten()
    }

    /// Takes out the next, and says whether it gets a slot or waited too long for one.
    pub(super) fn pop(
        &mut self,
        now: impl FnOnce() -> Instant,
    ) -> Option<(Arc<Waiter>, Result<(), Reason>)> {
        let waiter = self.queue.pop_front()?;
        let Some(codel) = &mut self.codel else {
            return Some((waiter, Ok(())));
        };
        let now = now();
        let after = now.saturating_duration_since(waiter.since);
        let result = if codel.is_late(after, now) {
            Err(Reason::WaitedTooLong { after })
        } else {
            Ok(())
        };
        self.note_whether_empty();
        Some((waiter, result))
    }

    /// Takes out one who gave up; false if it was taken out before.
    pub(super) fn remove(&mut self, waiter: &Arc<Waiter>) -> bool {
        let place = self
            .queue
            .iter()
            .position(|queued| Arc::ptr_eq(queued, waiter));
        let removed = place.and_then(|place| self.queue.remove(place)).is_some();
        self.note_whether_empty();
        removed
    }

    fn note_whether_empty(&mut self) {
        if let Some(codel) = &mut self.codel {
            if self.queue.is_empty() {
                codel.emptied();
            }
        }
    }
}
