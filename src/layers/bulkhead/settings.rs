use std::time::Duration;

use crate::slots::Order;

/// What a bulkhead goes by: how many calls may be under way at once, and who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(super) limit: usize,
    pub(super) queue: Option<Queue>,
    pub(super) order: Order,
}

impl Settings {
    /// So many slots, and a refusal at once when they are taken.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing could ever pass.
    #[must_use]
    #[track_caller]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: passes(limit),
            queue: None,
            order: Order::default(),
        }
    }

    /// Another number of slots.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[must_use]
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = passes(limit);
        self
    }

    /// Lets up to `length` calls wait for a slot, each for at most `max_wait`. Default: nobody waits.
    ///
    /// # Panics
    ///
    /// If `length` or `max_wait` is 0: that is no queue.
    #[must_use]
    #[track_caller]
    pub fn queue(mut self, length: usize, max_wait: Duration) -> Self {
        self.queue = Some(Queue::new(length, max_wait));
        self
    }

    /// Lets nobody wait.
    #[must_use]
    pub fn no_queue(mut self) -> Self {
        self.queue = None;
        self
    }

    /// Says who of those that wait is next. Default [`Order::OldestFirst`].
    ///
    /// # Panics
    ///
    /// If the target or the interval of [`Order::CoDel`] is zero.
    #[must_use]
    #[track_caller]
    pub fn order(mut self, order: Order) -> Self {
        self.order = possible(order);
        self
    }
}

/// How many may wait, and how long each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) length: usize,
    pub(super) max_wait: Duration,
}

impl Queue {
    #[track_caller]
    pub(super) fn new(length: usize, max_wait: Duration) -> Self {
        assert!(length > 0, "a queue of length 0 is no queue");
        assert!(!max_wait.is_zero(), "a queue of no wait is no queue");
        Self { length, max_wait }
    }
}

#[track_caller]
pub(super) fn passes(limit: usize) -> usize {
    assert!(limit > 0, "a bulkhead of no slots lets nothing pass");
    limit
}

#[track_caller]
pub(super) fn possible(order: Order) -> Order {
    if let Order::CoDel { target, interval } = order {
        assert!(
            !target.is_zero(),
            "a target of no wait refuses whoever waits"
        );
        assert!(
            !interval.is_zero(),
            "in an interval of no length nobody waits"
        );
    }
    order
}
