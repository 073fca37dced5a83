//! The slots on loom's primitives, so that the interleavings of a hand-over are run through.
//!
//! `cargo test` does so with up to two preemptions of a thread, `scripts/loom` with more; `LOOM_MAX_PREEMPTIONS` sets it.

use std::future::poll_fn;

use loom::future::block_on;
use loom::thread;

use self::slots::{Admission, Permit, Place, Slots};
use super::Order;

mod sync {
    use std::ops::Deref;

    pub(super) use loom::sync::atomic::Ordering;
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};

    /// Reads as it writes. loom remembers the last access to an atomic alone, so a load that follows another thread's
    /// load hides it from the write that comes next, and an interleaving is lost.
    #[derive(Debug)]
    pub(super) struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    impl AtomicUsize {
        pub(super) fn new(value: usize) -> Self {
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        pub(super) fn load(&self, _: Ordering) -> usize {
            self.0.fetch_or(0, Ordering::AcqRel)
        }

        pub(super) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            next: impl Fn(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            let mut seen = self.load(fetch);
            while let Some(next) = next(seen) {
                match self.0.compare_exchange(seen, next, set, fetch) {
                    Ok(before) => return Ok(before),
                    Err(now) => seen = now,
                }
            }
            Err(seen)
        }
    }

    impl Deref for AtomicUsize {
        type Target = loom::sync::atomic::AtomicUsize;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}

#[path = "slots.rs"]
#[allow(clippy::duplicate_mod, unreachable_pub)]
mod slots;

#[test]
fn whoever_waits_is_woken_however_a_slot_comes_free() {
    model(|| {
        let slots = Slots::new(1);
        let other = {
            let slots = slots.clone();
            thread::spawn(move || drop(wait(&slots)))
        };
        drop(wait(&slots));
        other.join().unwrap();
        assert_idle(&slots);
    });
}

#[test]
fn a_slot_granted_to_one_who_gives_up_goes_to_the_next() {
    model(|| {
        let slots = Slots::new(1);
        let held = slots.try_take().unwrap();
        let first = queue(&slots);
        let second = queue(&slots);
        let release = thread::spawn(move || drop(held));
        let give_up = thread::spawn(move || drop(first));
        drop(block_on(poll_fn(|cx| second.poll(cx))));
        release.join().unwrap();
        give_up.join().unwrap();
        drop(second);
        assert_idle(&slots);
    });
}

#[test]
fn a_newcomer_does_not_get_between_a_slot_and_who_waits_for_it() {
    model(|| {
        let slots = Slots::new(1);
        let held = slots.try_take().unwrap();
        let first = queue(&slots);
        let release = thread::spawn(move || drop(held));
        assert!(slots.try_take().is_none());
        drop(block_on(poll_fn(|cx| first.poll(cx))));
        release.join().unwrap();
        drop(first);
        assert_idle(&slots);
    });
}

#[test]
fn a_resize_races_with_a_release_and_with_a_newcomer() {
    model(|| {
        let slots = Slots::new(1);
        let held = slots.try_take().unwrap();
        let resize = {
            let slots = slots.clone();
            thread::spawn(move || slots.resize(2))
        };
        let release = thread::spawn(move || drop(held));
        drop(wait(&slots));
        resize.join().unwrap();
        release.join().unwrap();
        assert_idle(&slots);
    });
}

#[test]
fn one_who_is_displaced_while_giving_up_or_being_granted_loses_no_slot() {
    model(|| {
        let slots = Slots::new(1);
        let displacing = |slots: &Slots| slots.take_or_queue(1, Order::NewestFirstDropOldest);
        let held = slots.try_take().unwrap();
        let first = displacing(&slots);
        let release = thread::spawn(move || drop(held));
        let give_up = thread::spawn(move || drop(first));
        match displacing(&slots) {
            Admission::Permit(permit) => drop(permit),
            Admission::Place(place) => drop(block_on(poll_fn(|cx| place.poll(cx)))),
            Admission::QueueFull => panic!("the oldest gives way"),
        }
        release.join().unwrap();
        give_up.join().unwrap();
        assert_idle(&slots);
    });
}

#[test]
fn the_limit_holds_between_threads() {
    model(|| {
        let slots = Slots::new(1);
        let take = |slots: &Slots| slots.try_take().map(|_permit| slots.in_flight());
        let other = {
            let slots = slots.clone();
            thread::spawn(move || take(&slots))
        };
        let seen = [take(&slots), other.join().unwrap()];
        assert!(seen.iter().any(Option::is_some));
        assert!(seen.iter().flatten().all(|&in_flight| in_flight == 1));
        assert_idle(&slots);
    });
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(run);
}

fn wait(slots: &Slots) -> Permit {
    match slots.take_or_queue(2, Order::OldestFirst) {
        Admission::Permit(permit) => permit,
        Admission::Place(place) => block_on(poll_fn(|cx| place.poll(cx))).unwrap(),
        Admission::QueueFull => panic!("two may wait"),
    }
}

fn queue(slots: &Slots) -> Place {
    match slots.take_or_queue(2, Order::OldestFirst) {
        Admission::Place(place) => place,
        _ => panic!("the slot is taken, and two may wait"),
    }
}

/// Nobody is in flight, nobody waits, and the way without the lock is open again.
fn assert_idle(slots: &Slots) {
    assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    assert!(slots.try_take().is_some());
}
