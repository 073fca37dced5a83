//! The slots on loom's primitives, so that the interleavings of a hand-over are run through.

use std::future::poll_fn;

use loom::future::block_on;
use loom::thread;

use self::counter::{Admission, Permit, Slots};
use self::place::Place;
use self::shared::Shared;
use crate::error::Reason;
use crate::model::{check, take_lane};
use crate::slab::Slab;

mod sync {
    pub(super) use loom::sync::atomic::Ordering;
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};

    pub(super) use crate::model::{AtomicU64, AtomicUsize, lanes, mine};
}

#[path = "counter.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod counter;
#[path = "line.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod line;
#[path = "place.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod place;
#[path = "shared.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod shared;
#[path = "shares.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod shares;
#[path = "turns.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub)]
mod turns;

/// What one run leaves is of no use to the next.
fn slab() -> &'static Slab<(), Shared> {
    Box::leak(Box::new(Slab::new()))
}

#[test]
fn whoever_waits_is_woken_however_a_slot_comes_free() {
    check(|| {
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
    check(|| {
        let slots = Slots::new(1);
        let held = slots.try_take(Slots::TOP).unwrap();
        let first = queue(&slots);
        let second = queue(&slots);
        let release = thread::spawn(move || drop(held));
        let give_up = thread::spawn(move || drop(first));
        drop(block_on(poll_fn(|cx| second.poll(cx))).unwrap());
        release.join().unwrap();
        give_up.join().unwrap();
        drop(second);
        assert_idle(&slots);
    });
}

#[test]
fn a_newcomer_does_not_get_between_a_slot_and_who_waits_for_it() {
    check(|| {
        let slots = Slots::new(1);
        let held = slots.try_take(Slots::TOP).unwrap();
        let first = queue(&slots);
        let release = thread::spawn(move || drop(held));
        assert!(slots.try_take(Slots::TOP).is_none());
        drop(block_on(poll_fn(|cx| first.poll(cx))).unwrap());
        release.join().unwrap();
        drop(first);
        assert_idle(&slots);
    });
}

#[test]
fn a_resize_races_with_a_release_and_with_a_newcomer() {
    check(|| {
        let slots = Slots::new(1);
        let held = slots.try_take(Slots::TOP).unwrap();
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
fn one_who_gives_way_may_give_up_or_be_granted_a_slot_meanwhile() {
    check(|| {
        let slots = Slots::new(1);
        let held = slots.try_take(Slots::TOP).unwrap();
        let Admission::Place(low) = take_or_queue(&slots, 0, 1) else {
            panic!("the slot is taken, and one may wait");
        };
        let release = thread::spawn(move || drop(held));
        let high = {
            let slots = slots.clone();
            thread::spawn(move || drop(take_or_queue(&slots, Slots::TOP, 1)))
        };
        drop(low);
        high.join().unwrap();
        release.join().unwrap();
        assert_idle(&slots);
    });
}

#[test]
fn a_partition_gets_its_share_and_no_more_however_others_borrow() {
    check(|| {
        let slots = Slots::shared_out(2, &[0.5, 0.5]);
        let take = |partition| {
            let slots = slots.of(partition);
            move || [slots.try_take(Slots::TOP), slots.try_take(Slots::TOP)]
        };
        let borrows = thread::spawn(take(1));
        let [first, second] = take(2)();
        let borrowed = borrows.join().unwrap();
        assert!(
            first.is_some() && borrowed[0].is_some(),
            "each has one for itself"
        );
        let more = [&second, &borrowed[1]]
            .iter()
            .filter(|it| it.is_some())
            .count();
        assert!(more <= 1, "the others' share was borrowed twice");
        drop((first, second, borrowed));
        assert_idle(&slots);
    });
}

#[test]
fn the_limit_holds_between_threads() {
    check(|| {
        let slots = Slots::new(1);
        let take = |slots: &Slots| slots.try_take(Slots::TOP).map(|_permit| slots.in_flight());
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

#[test]
fn a_slot_that_a_lane_keeps_is_found_by_every_other_thread() {
    check(|| {
        let slots = open();
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                take_lane(1);
                let three = (0..3).map_while(|_| slots.try_take(Slots::TOP));
                three.collect::<Vec<_>>().len()
            })
        };
        // One comes and goes meanwhile, and its slot may stay in its lane.
        let taken = slots.try_take(Slots::TOP).is_some();
        assert_eq!((taken, other.join().unwrap()), (true, 3));
        assert_idle(&slots);
    });
}

#[test]
fn the_limit_holds_between_lanes() {
    check(|| {
        let slots = open();
        let take = |slots: &Slots| {
            let three = (0..3).map_while(|_| slots.try_take(Slots::TOP));
            three.collect::<Vec<_>>()
        };
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                take_lane(1);
                take(&slots)
            })
        };
        let mine = take(&slots);
        let others = other.join().unwrap();
        assert_eq!(mine.len() + others.len(), 4);
        drop((mine, others));
        assert_idle(&slots);
    });
}

#[test]
fn who_waits_gets_the_slot_whatever_lane_it_is_given_back_to() {
    check(|| {
        let slots = open();
        let held: Vec<_> = (0..4)
            .map(|_| slots.try_take(Slots::TOP).unwrap())
            .collect();
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                take_lane(1);
                drop(wait(&slots));
            })
        };
        drop(held);
        other.join().unwrap();
        assert_idle(&slots);
    });
}

/// Four slots, of which each of the two lanes may keep one.
fn open() -> Slots {
    let slots = Slots::new(4);
    // Opens the lanes.
    drop(slots.try_take(Slots::TOP));
    // Stays in this thread's.
    drop(slots.try_take(Slots::TOP));
    slots
}

fn wait(slots: &Slots) -> Permit {
    match take_or_queue(slots, Slots::TOP, 2) {
        Admission::Permit(permit) => permit,
        Admission::Place(place) => block_on(poll_fn(|cx| place.poll(cx))).unwrap(),
        Admission::QueueFull => panic!("two may wait"),
    }
}

fn queue(slots: &Slots) -> Place {
    match take_or_queue(slots, Slots::TOP, 2) {
        Admission::Place(place) => place,
        _ => panic!("the slot is taken, and two may wait"),
    }
}

fn take_or_queue(slots: &Slots, level: u8, length: usize) -> Admission {
    let reason = Reason::QueueFull { limit: length };
    slots.take_or_queue(level, None, reason, |waiting| waiting >= length)
}

/// Nobody is in flight, nobody waits, and the way without the lock is open again.
fn assert_idle(slots: &Slots) {
    assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    assert!(slots.try_take(Slots::TOP).is_some());
}
