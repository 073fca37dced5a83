use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::acquire::Acquire;
use super::service::BulkheadLayer;
use super::settings::{Queue, Settings, passes, possible};
use crate::admitted::Entry;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;
use crate::slots::{Admission, Order, Permit, Slots, Wait};

/// A limit on how many calls are under way at once. Clones share its slots and its queue; the bounds of the queue and
/// the observer are those of the clone that they were set on, and of its clones.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    pub(crate) slots: Slots,
    pub(super) own: Arc<Own>,
}

/// What a clone may have apart from others.
#[derive(Clone, Debug)]
pub(super) struct Own {
    name: Arc<str>,
    pub(super) queue: Arc<ArcSwapOption<Queue>>,
    pub(super) partitions: Vec<Arc<str>>,
    observer: Observer,
}

impl Bulkhead {
    /// A bulkhead of `limit` slots that refuses at once when they are taken.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing could ever pass.
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, limit: usize) -> Self {
        Self {
            slots: Slots::new(passes(limit)),
            own: Arc::new(Own {
                name: name.into(),
                queue: Arc::default(),
                partitions: Vec::new(),
                observer: Observer::default(),
            }),
        }
    }

    pub(super) fn with(name: String, settings: Settings) -> Self {
        let bulkhead = Self::new(name, settings.limit);
        bulkhead.reconfigure(settings);
        bulkhead
    }

    /// Lets up to `length` calls wait for a slot, first come, first served unless [`order`](Self::order) says
    /// otherwise, each for at most `max_wait` and never past its request's [`Deadline`](crate::Deadline). Off by
    /// default: under overload a queue adds latency and no throughput.
    ///
    /// # Panics
    ///
    /// If `length` or `max_wait` is 0: that is no queue. If there are [`partitions`](Self::partitions).
    #[must_use]
    #[track_caller]
    pub fn queue(mut self, length: usize, max_wait: Duration) -> Self {
        let queue = Queue::new(length, max_wait);
        assert!(self.own.partitions.is_empty(), "{NO_QUEUE}");
        let queue = Arc::new(ArcSwapOption::from_pointee(queue));
        Arc::make_mut(&mut self.own).queue = queue;
        self
    }

    /// Says who is next of those that come from now on and wait, on all clones. Default [`Order::OldestFirst`].
    ///
    /// # Panics
    ///
    /// If the target or the interval of [`Order::CoDel`] is zero.
    #[must_use]
    #[track_caller]
    pub fn order(self, order: Order) -> Self {
        self.slots.order(possible(order));
        self
    }

    /// Tells `observer` of each call refused.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.own).observer = observer.into();
        self
    }

    /// A layer that puts calls behind this bulkhead. All its layers share the slots, which come back with the response;
    /// see [`hold`](BulkheadLayer::hold).
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
        match self.admit() {
            Ok(Entry::Now(permit)) => Acquire::over(Ok(permit)),
            Ok(Entry::Later(acquire)) => acquire,
            Err(rejected) => Acquire::over(Err(rejected)),
        }
    }

    /// Changes the number of slots, and returns at once. More slots wake who waits; fewer take effect as calls end.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn resize(&self, limit: usize) {
        self.slots.resize(passes(limit));
    }

    /// Goes by another limit, queue and order from now on, while calls flow. The bounds of the queue are those of this
    /// clone, and of all that were not given a [`queue`](Self::queue) of their own.
    ///
    /// Whoever waits already goes on to wait for as long as it was promised, in front of all who come later, and gives way
    /// to none of them: neither a shorter queue nor another order turns anybody out. More slots wake who waits; fewer
    /// take effect as calls end.
    ///
    /// # Panics
    ///
    /// If there is a queue in `settings`, and there are [`partitions`](Self::partitions).
    #[track_caller]
    pub fn reconfigure(&self, settings: Settings) {
        let partitioned = !self.own.partitions.is_empty();
        assert!(!partitioned || settings.queue.is_none(), "{NO_QUEUE}");
        self.own.queue.store(settings.queue.map(Arc::new));
        self.slots.order(settings.order);
        self.slots.resize(settings.limit);
    }

    /// What it goes by now.
    pub fn settings(&self) -> Settings {
        Settings {
            limit: self.slots.limit(),
            queue: self.queue_now(),
            order: self.slots.order_now(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.own.name
    }

    /// How many calls may be under way at once.
    pub fn limit(&self) -> usize {
        match self.slots.share() {
            0 => self.slots.limit(),
            share => share,
        }
    }

    /// How many calls are under way: above the limit for a while after it was lowered.
    pub fn in_flight(&self) -> usize {
        match self.slots.share() {
            0 => self.slots.in_flight(),
            _ => self.slots.in_flight_here(),
        }
    }

    /// How many calls wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// Whether a slot is taken, a call waits, or another handle has it.
    pub(super) fn is_held(&self) -> bool {
        self.slots.is_in_use()
    }

    /// A slot, or the wait for one.
    #[inline(always)]
    pub(super) fn admit(&self) -> Result<Entry<Permit, Acquire>, Rejected> {
        match self.slots.try_take(Slots::TOP) {
            Some(permit) => Ok(Entry::Now(permit)),
            None => self.admit_later(),
        }
    }

    /// Where no slot was free a moment ago.
    fn admit_later(&self) -> Result<Entry<Permit, Acquire>, Rejected> {
        let Some(queue) = self.queue_now() else {
            return Err(self.refused(Reason::Full {
                limit: self.slots.limit(),
            }));
        };
        let length = queue.length;
        let full = Reason::QueueFull { limit: length };
        let admission = self
            .slots
            .take_or_queue(Slots::TOP, None, full, |waiting| waiting >= length);
        match admission {
            Admission::Permit(permit) => Ok(Entry::Now(permit)),
            Admission::Place(place) => {
                let wait = Wait::new(place, queue.max_wait);
                Ok(Entry::Later(Acquire::waiting(wait, self.clone())))
            }
            Admission::QueueFull => Err(self.refused(full)),
        }
    }

    fn queue_now(&self) -> Option<Queue> {
        self.own.queue.load().as_deref().copied()
    }

    pub(super) fn refused(&self, reason: Reason) -> Rejected {
        let name = Arc::clone(&self.own.name);
        let rejected = Rejected::new("bulkhead", reason).named(name).unsent();
        self.own.observer.refused(rejected)
    }
}

pub(super) const NO_QUEUE: &str = "a bulkhead has partitions or a queue, not both";
