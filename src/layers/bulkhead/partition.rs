use std::sync::Arc;

use super::handle::NO_QUEUE;
use super::{Bulkhead, BulkheadLayer, By, Select};
use crate::slots::{Shares, Slots};

impl Bulkhead {
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
        let Some(place) = self.place(name) else {
            panic!("`{}` has no partition `{name}`", self.name());
        };
        self.at(place)
    }

    fn place(&self, name: &str) -> Option<usize> {
        let mut names = self.own.partitions.iter();
        names.position(|other| **other == *name)
    }

    fn at(&self, place: usize) -> Self {
        Self {
            slots: self.slots.of(place + 1),
            own: Arc::clone(&self.own),
        }
    }
}

impl<H> BulkheadLayer<H> {
    /// Puts each call into the partition that `name` says for its request.
    ///
    /// What names none goes where it would go without this: to what the partitions leave, or to the
    /// [`partition`](Bulkhead::partition) that the layer is of. So does what names one that there is not: a request is not
    /// refused for its label, and gains no share by one that it made up.
    #[must_use]
    pub fn partition_by<Req, F>(self, name: F) -> BulkheadLayer<H, By<Partitions, F>>
    where
        F: for<'a> Fn(&'a Req) -> Option<&'a str>,
    {
        self.map(|rest| {
            let places = 0..rest.own.partitions.len();
            let named = places.map(|place| rest.at(place)).collect();
            let bulkheads = Partitions { rest, named };
            By { bulkheads, name }
        })
    }
}

/// The partitions of a bulkhead, for requests that name theirs; see [`BulkheadLayer::partition_by`].
#[derive(Clone, Debug)]
pub struct Partitions {
    rest: Bulkhead,
    /// In their places.
    named: Arc<[Bulkhead]>,
}

impl<F, Req> Select<Req> for By<Partitions, F>
where
    F: for<'a> Fn(&'a Req) -> Option<&'a str>,
{
    #[inline]
    fn select<T>(&self, request: &Req, enter: impl Fn(&Bulkhead) -> T) -> T {
        let Partitions { rest, named } = &self.bulkheads;
        let place = (self.name)(request).and_then(|name| rest.place(name));
        enter(place.map_or(rest, |place| &named[place]))
    }
}
