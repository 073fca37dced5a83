use std::sync::Arc;
use std::time::Duration;

use super::acquire::Acquire;
use super::service::BulkheadLayer;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;
use crate::slots::{Admission, Order, Slots, Wait};

/// A limit on how many calls are under way at once. Clones share its slots and its queue.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    slots: Slots,
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Arc<str>,
    queue: Option<Queue>,
    observer: Observer,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    length: usize,
    max_wait: Duration,
}

impl Bulkhead {
    /// A bulkhead of `limit` slots that refuses at once when they are taken.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing could ever pass.
    pub fn new(name: impl Into<Arc<str>>, limit: usize) -> Self {
        assert!(limit > 0, "a bulkhead of no slots lets nothing pass");
        Self {
            slots: Slots::new(limit),
            settings: Arc::new(Settings {
                name: name.into(),
                queue: None,
                observer: Observer::default(),
            }),
        }
    }

    /// Lets up to `length` calls wait for a slot, first come, first served unless [`order`](Self::order) says
    /// otherwise, each for at most `max_wait` and never past its request's [`Deadline`](crate::Deadline). Off by default: under overload a queue adds latency and no throughput.
    ///
    /// # Panics
    ///
    /// If `length` or `max_wait` is 0: that is no queue.
    #[must_use]
    pub fn queue(mut self, length: usize, max_wait: Duration) -> Self {
        assert!(length > 0, "a queue of length 0 is no queue");
        assert!(!max_wait.is_zero(), "a queue of no wait is no queue");
        Arc::make_mut(&mut self.settings).queue = Some(Queue { length, max_wait });
        self
    }

    /// Says who of those that wait is next. Default [`Order::Fifo`].
    ///
    /// # Panics
    ///
    /// If the target or the interval of [`Order::CoDel`] is zero.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
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
        self.slots.order(order);
        self
    }

    /// Tells `observer` of each call refused.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer.into();
        self
    }

    /// A layer that puts calls behind this bulkhead. All its layers share the slots.
    pub fn layer(&self) -> BulkheadLayer {
        BulkheadLayer::new(self.clone())
    }

    /// Asks for a slot without tower, and waits for it where there is a queue.
    ///
    /// The slot, or the place in the queue, is taken now and not when the future is first polled.
    ///
    /// # Errors
    ///
    /// [`Rejected`] by `"bulkhead"`: `Full` without a queue; with one `QueueFull`, `WaitedTooLong` or
    /// `DeadlineExceeded`.
    pub fn acquire(&self) -> Acquire {
        self.admit()
            .unwrap_or_else(|rejected| Acquire::over(Err(rejected)))
    }

    /// Changes the number of slots, and returns at once. More slots wake who waits; fewer take effect as calls end.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    pub fn resize(&self, limit: usize) {
        assert!(limit > 0, "a bulkhead of no slots lets nothing pass");
        self.slots.resize(limit);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// How many calls may be under way at once.
    pub fn limit(&self) -> usize {
        self.slots.limit()
    }

    /// How many calls are under way: above the limit for a while after it was lowered.
    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// How many calls wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// A slot, or the wait for one.
    pub(super) fn admit(&self) -> Result<Acquire, Rejected> {
        let Some(queue) = self.settings.queue else {
            return match self.slots.try_take(Slots::TOP) {
                Some(permit) => Ok(Acquire::over(Ok(permit))),
                None => Err(self.refused(Reason::Full {
                    limit: self.limit(),
                })),
            };
        };
        let length = queue.length;
        let full = Reason::QueueFull { limit: length };
        let admission = self
            .slots
            .take_or_queue(Slots::TOP, full, |waiting| waiting >= length);
        match admission {
            Admission::Permit(permit) => Ok(Acquire::over(Ok(permit))),
            Admission::Place(place) => {
                let wait = Wait::new(place, queue.max_wait);
                Ok(Acquire::waiting(wait, self.clone()))
            }
            Admission::QueueFull => Err(self.refused(full)),
        }
    }

    pub(super) fn refused(&self, reason: Reason) -> Rejected {
        let rejected = Rejected::new("bulkhead", reason).named(Arc::clone(&self.settings.name));
        self.settings.observer.refused(rejected)
    }
}
