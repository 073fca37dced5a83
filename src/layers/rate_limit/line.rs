use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::algo::gcra::{Bucket, Limit};
use crate::clock;
use crate::deadline::Deadline;

/// A bucket and those who wait for it. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<Mutex<State>>);

/// Invariant: of those who wait the first has taken its permits, ahead of time, and the others none yet. So whoever
/// leaves gives back exactly what it took, and those behind it move up.
#[derive(Debug)]
struct State {
    bucket: Bucket,
    queue: VecDeque<Waiter>,
    /// When the first may go.
    due: Instant,
    /// What those behind the first ask for.
    queued: u64,
    next_id: u64,
    /// To be woken once the lock is released.
    woken: Vec<Waker>,
    /// Whether its limit is not the one of its key, but was set through a handle of it.
    by_hand: bool,
}

#[derive(Debug)]
struct Waiter {
    /// Rises along the queue.
    id: u64,
    cost: u32,
    waker: Option<Waker>,
}

impl Line {
    pub(super) fn new(limit: Limit, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            bucket: Bucket::new(limit, now),
            queue: VecDeque::new(),
            due: now,
            queued: 0,
            next_id: 0,
            woken: Vec::new(),
            by_hand: false,
        })))
    }

    /// Takes `cost` permits, or a place in the queue if they come within `longest` and before the deadline.
    pub(super) fn ask(&self, cost: u32, longest: Duration) -> Result<Place, Denied> {
        let (id, asked, latest) = self.with(|state, now| {
            let longest = clock::after(now, longest);
            let latest = Deadline::current().map_or(longest, |it| it.instant().min(longest));
            if cost == 0 {
                return Ok((None, now, latest));
            }
            let due = state.bucket.due(state.queued + u64::from(cost), now);
            if due > latest.max(now) {
                return Err(state.denied(cost, due, longest, now));
            }
            if due > now {
                return Ok((Some(state.join(cost, now)), now, latest));
            }
            state.bucket.take(cost, now);
            Ok((None, now, latest))
        })?;
        Ok(Place {
            line: self.clone(),
            id,
            cost,
            asked,
            latest,
        })
    }

    pub(super) fn reconfigure(&self, limit: Limit, by_hand: bool) {
        self.with(|state, now| {
            state.by_hand = by_hand;
            state.steer(now, |bucket| bucket.reconfigure(limit, now));
        });
    }

    pub(super) fn pause(&self, wait: Duration) {
        self.with(|state, now| {
            if wait > state.bucket.paused_for(now) {
                let until = clock::after(now, wait);
                state.steer(now, |bucket| bucket.pause(until));
            }
        });
    }

    pub(super) fn resume(&self) {
        self.with(|state, now| state.steer(now, |bucket| bucket.resume(now)));
    }

    pub(super) fn paused_for(&self) -> Duration {
        self.with(|state, now| state.bucket.paused_for(now))
    }

    pub(super) fn drain(&self) {
        self.with(|state, now| state.bucket.drain(now));
    }

    pub(super) fn available(&self) -> i64 {
        self.with(|state, now| {
            let signed = |permits| i64::try_from(permits).unwrap_or(i64::MAX);
            match state.queue.front() {
                // It has permits that would be there, were it not for the pause.
                Some(first) if !state.bucket.paused_for(now).is_zero() => {
                    -signed(state.queued + u64::from(first.cost))
                }
                _ => state
                    .bucket
                    .available(now)
                    .saturating_sub(signed(state.queued)),
            }
        })
    }

    pub(super) fn waiting(&self) -> usize {
        self.with(|state, _| state.queue.len())
    }

    /// How long until it is as if it were new.
    pub(super) fn busy_for(&self) -> Duration {
        self.with(|state, now| state.bucket.busy_for(now))
    }

    pub(super) fn is_set_by_hand(&self) -> bool {
        self.lock().by_hand
    }

    /// Whether somebody else holds it: one who asks, who waits, or who steers it.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// One step, after those whose time has come have gone.
    fn with<T>(&self, step: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        // Read under the lock, or who comes to it second would come from a time before the first.
        let now = clock::now();
        state.settle(now);
        let result = step(&mut state, now);
        let woken = mem::take(&mut state.woken);
        drop(state);
        // A waker is foreign code: it runs outside the lock.
        woken.into_iter().for_each(Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn denied(&self, cost: u32, due: Instant, longest: Instant, now: Instant) -> Denied {
        let limit = self.bucket.limit();
        let burst = limit.largest_burst();
        if cost > burst && Bucket::new(limit, now).due(u64::from(cost), now) > longest {
            return Denied::Never { burst };
        }
        Denied::For(due - now)
    }

    fn join(&mut self, cost: u32, now: Instant) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queue.push_back(Waiter {
            id,
            cost,
            waker: None,
        });
        self.queued += u64::from(cost);
        if self.queue.len() == 1 {
            self.advance_first(now);
        }
        id
    }

    /// Lets those go whose time has come: as of that time, so that nothing is lost where they are polled late.
    fn settle(&mut self, now: Instant) {
        while self.due <= now {
            let Some(mut gone) = self.queue.pop_front() else {
                return;
            };
            self.woken.extend(gone.waker.take());
            self.advance_first(self.due);
        }
    }

    fn leave(&mut self, place: usize, now: Instant) {
        let Some(gone) = self.queue.remove(place) else {
            return;
        };
        if place == 0 {
            self.bucket.give_back(gone.cost, self.due, now);
            self.advance_first(now);
        } else {
            self.queued -= u64::from(gone.cost);
        }
    }

    /// The first of the queue takes its permits.
    fn advance_first(&mut self, now: Instant) {
        let Some(first) = self.queue.front_mut() else {
            return;
        };
        self.queued -= u64::from(first.cost);
        self.bucket.take(first.cost, now);
        self.due = self.bucket.due(0, now);
        // To set its timer anew.
        self.woken.extend(first.waker.take());
    }

    /// Changes the bucket behind the first's back: it takes its permits anew.
    fn change(&mut self, now: Instant, step: impl FnOnce(&mut Bucket)) {
        if let Some(first) = self.queue.front() {
            self.bucket.give_back(first.cost, self.due, now);
            self.queued += u64::from(first.cost);
        }
        step(&mut self.bucket);
        self.advance_first(now);
    }

    /// Changes when those go that wait, and tells them.
    fn steer(&mut self, now: Instant, step: impl FnOnce(&mut Bucket)) {
        self.change(now, step);
        let wakers = self.queue.iter_mut().filter_map(|it| it.waker.take());
        self.woken.extend(wakers);
    }

    fn find(&self, id: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&id, |it| it.id).ok()
    }
}

/// Why there are no permits, and no place to wait for them.
#[derive(Debug)]
pub(super) enum Denied {
    For(Duration),
    /// Not even an idle limiter could give them in time.
    Never {
        burst: u32,
    },
}

pub(super) enum Turn {
    Now,
    At(Instant),
}

/// Permits that were taken, or a place in the queue for them. Dropped, it gives back what it has.
#[derive(Debug)]
pub(super) struct Place {
    line: Line,
    /// None once there is nothing to wait for.
    id: Option<u64>,
    cost: u32,
    asked: Instant,
    latest: Instant,
}

impl Place {
    /// Whether the permits are there already.
    pub(super) fn has_permits(&self) -> bool {
        self.id.is_none()
    }

    /// Whether the permits may be used. If not, the context is woken when they may, or when that changes, if the timer
    /// is not: it says until when to wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Turn, Denied> {
        let Some(id) = self.id else {
            return Ok(Turn::Now);
        };
        // A deadline can be in force around this future and not have been around the call.
        if let Some(deadline) = Deadline::current() {
            self.latest = self.latest.min(deadline.instant());
        }
        let (due, now, _old) = self.line.with(|state, now| {
            let Some(place) = state.find(id) else {
                return (None, now, None);
            };
            let ahead = state.queue.range(1..=place).map(|it| u64::from(it.cost));
            let ahead = ahead.sum();
            // Dropped by the caller: dropping a waker may run anything, and not under the lock.
            let old = state.queue[place].waker.replace(cx.waker().clone());
            (Some(state.bucket.due(ahead, now)), now, old)
        });
        match due {
            None => {
                self.id = None;
                Ok(Turn::Now)
            }
            Some(due) if due > self.latest => Err(Denied::For(due - now)),
            Some(due) => Ok(Turn::At(due)),
        }
    }

    /// The permits are used.
    pub(super) fn spend(mut self) {
        self.id = None;
        self.cost = 0;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.cost == 0 {
            return;
        }
        let (id, cost, asked) = (self.id, self.cost, self.asked);
        self.line.with(|state, now| {
            let place = id.and_then(|id| state.find(id));
            match place {
                Some(place) => state.leave(place, now),
                None => state.change(now, |bucket| bucket.give_back(cost, asked, now)),
            }
        });
    }
}
