use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::place::Waiter;
use super::sync::Arc;
use super::turns::{Caller, Turns};
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

/// Those who wait, the next in front. Higher levels stand in front of lower ones, and within one the earlier turns.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Spot>,
    turns: Turns,
    order: Order,
    /// The first turn of those whom `order` holds for: the others came before it.
    ordered: u64,
    codel: Option<CoDel>,
}

/// A spot is its caller's: if who stands there leaves, the caller's next moves up to it.
#[derive(Debug)]
struct Spot {
    turn: u64,
    waiter: Arc<Waiter>,
}

impl Line {
    /// For those who come from now on. Whoever waits already is served before them, and gives way to none of them.
    pub(super) fn reorder(&mut self, order: Order) {
        if order == self.order {
            return;
        }
        if let Some(last) = self.queue.iter().map(|spot| spot.turn).max() {
            self.turns.served(last + 1);
            self.ordered = last + 1;
        }
        self.order = order;
        self.codel = match order {
            Order::CoDel { target, interval } => Some(CoDel::new(target, interval)),
            _ => None,
        };
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The level of the next.
    pub(super) fn level(&self) -> Option<u8> {
        self.queue.front().map(|place| place.waiter.level)
    }

    pub(super) fn push(&mut self, waiter: Arc<Waiter>) {
        let caller = caller(waiter.level, waiter.caller);
        let turn = self.turns.next(caller);
        self.turns.take(caller, turn, self.queue.len());
        let newest_first = matches!(
            self.order,
            Order::NewestFirst | Order::NewestFirstDropOldest
        );
        let place =
            self.queue
                .partition_point(|other| match other.waiter.level.cmp(&waiter.level) {
                    Ordering::Equal if other.turn == turn => !newest_first,
                    Ordering::Equal => other.turn < turn,
                    above => above.is_gt(),
                });
        self.queue.insert(place, Spot { turn, waiter });
    }

    /// Takes out who has to give way to a newcomer of this level when the line is full, if anybody has.
    pub(super) fn displace(&mut self, level: u8, by: Option<u64>) -> Option<Arc<Waiter>> {
        let last = self.queue.back()?;
        let gives_way = match last.waiter.level.cmp(&level) {
            Ordering::Equal if self.order == Order::NewestFirstDropOldest => {
                last.turn >= self.ordered
            }
            Ordering::Equal => last.turn > self.turns.next(caller(level, by)),
            below => below.is_lt(),
        };
        if !gives_way {
            return None;
        }
        let Spot { turn, waiter } = self.queue.pop_back()?;
        self.turns
            .give_back(caller(waiter.level, waiter.caller), turn);
        Some(waiter)
    }

    /// Takes out the next, and says whether it gets a slot or waited too long for one.
    pub(super) fn pop(
        &mut self,
        now: impl FnOnce() -> Instant,
    ) -> Option<(Arc<Waiter>, Result<(), Reason>)> {
        let Spot { turn, waiter } = self.queue.pop_front()?;
        self.turns.served(turn);
        let Some(codel) = self.codel.as_mut().filter(|_| turn >= self.ordered) else {
            self.note_whether_empty();
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
        let is = |place: &Spot| Arc::ptr_eq(&place.waiter, waiter);
        let Some(mut left) = self.queue.iter().position(is) else {
            return false;
        };
        let own = caller(waiter.level, waiter.caller);
        if own.is_some() {
            for next in left + 1..self.queue.len() {
                let other = &self.queue[next].waiter;
                if caller(other.level, other.caller) == own {
                    let moved = Arc::clone(other);
                    self.queue[left].waiter = moved;
                    left = next;
                }
            }
        }
        if let Some(Spot { turn, .. }) = self.queue.remove(left) {
            self.turns.give_back(own, turn);
        }
        self.note_whether_empty();
        true
    }

    fn note_whether_empty(&mut self) {
        if !self.queue.is_empty() {
            return;
        }
        if let Some(codel) = &mut self.codel {
            codel.emptied();
        }
        self.turns.forget();
        self.ordered = 0;
    }
}

fn caller(level: u8, caller: Option<u64>) -> Option<Caller> {
    caller.map(|caller| (level, caller))
}
