use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::acquire::Acquire;
use super::service::BulkheadLayer;
use super::settings::{Queue, Settings, passes, possible};
use crate::admitted::Entry;
use crate::error::{Reason, Rejected};
use crate::observe::Observer;
use crate::slots::{Admission, Order, Permit, Shares, Slots, Wait};

/// A limit on how many calls are under way at once. Clones share its slots and its queue; the bounds of the queue and
/// the observer are those of the clone that they were set on, and of its clones.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    slots: Slots,
    own: Arc<Own>,
}

/// What a clone may have apart from others.
#[derive(Clone, Debug)]
struct Own {
    name: Arc<str>,
    queue: Arc<ArcSwapOption<Queue>>,
    partitions: Vec<Arc<str>>,
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

    /// Gives each of these partitions, by its name, a share of the slots from 0 to 1, rounded up and at least one.
    ///
    /// A partition may use slots that others leave, and is held to its share once all are taken; its share it gets at
    /// once, even where others have borrowed it, so that for a while there may be more calls than the limit. One
    /// compare-and-swap decides, on one word: of four partitions each can have 4095 calls under way, of fewer more. Set
    /// it before the bulkhead is used: the slots start afresh.
    ///
    /// # Panics
    ///
    /// If there are more than four, a share is not between 0 and 1, or all are more than 1 together. If there is a
    /// [`queue`](Self::queue): who stands in front of it could keep a partition from its share.
    #[must_use]
    #[track_caller]
    pub fn partitions<N: Into<Arc<str>>>(
        mut self,
        shares: impl IntoIterator<Item = (N, f64)>,
    ) -> Self {
        assert!(self.own.queue.load().is_none(), "{NO_QUEUE}");
        let (names, shares): (Vec<Arc<str>>, Vec<f64>) = shares
            .into_iter()
            .map(|(name, share)| (name.into(), share))
            .unzip();
        assert!(names.len() <= Shares::MOST, "more than four partitions");
        let possible = shares.iter().all(|share| (0.0..=1.0).contains(share));
        assert!(possible, "a share is not between 0 and 1: {shares:?}");
        let all: f64 = shares.iter().sum();
        assert!(
            all <= 1.0 + 1e-9,
            "the shares are more than 1 together: {shares:?}"
        );
        self.slots = Slots::shared_out(self.limit(), &shares);
        let own = Arc::make_mut(&mut self.own);
        own.partitions = names;
        own.queue = Arc::default();
        self
    }

    /// The handle of one partition. Its calls count there, its [`limit`](Self::limit) is its share, and
    /// [`in_flight`](Self::in_flight) says how many calls are its own.
    ///
    /// # Panics
    ///
    /// If there is none of this name.
    #[must_use]
    #[track_caller]
    pub fn partition(&self, name: &str) -> Self {
        let mut names = self.own.partitions.iter();
        let Some(place) = names.position(|other| **other == *name) else {
            panic!("`{}` has no partition `{name}`", self.name());
        };
        Self {
            slots: self.slots.of(place + 1),
            own: Arc::clone(&self.own),
        }
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

const NO_QUEUE: &str = "a bulkhead has partitions or a queue, not both";
