//! The slots on loom's primitives, so that the interleavings of a hand-over are run through.

use std::future::poll_fn;

use loom::future::block_on;
use loom::thread;

use self::slots::{Admission, Permit, Place, Slots};
use crate::model::{check, take_lane};

mod sync {
    pub(super) use loom::sync::atomic::Ordering;
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};

    pub(super) use crate::model::{AtomicUsize, lane, lanes};
}

#[path = "slots.rs"]
#[allow(clippy::duplicate_mod, unreachable_pub)]
mod slots;

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
    check(|| {
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
    check(|| {
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
fn the_limit_holds_between_threads() {
    check(|| {
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

#[test]
fn a_slot_that_a_lane_keeps_is_found_by_every_other_thread() {
    check(|| {
        let slots = open();
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                take_lane(1);
                let three: Vec<_> = (0..3).map_while(|_| slots.try_take()).collect();
                three.len()
            })
        };
        // One comes and goes meanwhile, and its slot may stay in its lane.
        let taken = slots.try_take().is_some();
        assert_eq!((taken, other.join().unwrap()), (true, 3));
        assert_idle(&slots);
    });
}

#[test]
fn the_limit_holds_between_lanes() {
    check(|| {
        let slots = open();
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                take_lane(1);
                (0..3).map_while(|_| slots.try_take()).collect::<Vec<_>>()
            })
        };
        let mine: Vec<_> = (0..3).map_while(|_| slots.try_take()).collect();
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
        let held: Vec<_> = (0..4).map(|_| slots.try_take().unwrap()).collect();
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
    drop(slots.try_take());
    // Stays in this thread's.
    drop(slots.try_take());
    slots
}

fn wait(slots: &Slots) -> Permit {
    if let Some(permit) = slots.try_take() {
        return permit;
    }
    match slots.take_or_queue(2) {
        Admission::Permit(permit) => permit,
        Admission::Place(place) => block_on(poll_fn(|cx| place.poll(cx))),
        Admission::QueueFull => panic!("two may wait"),
    }
}

fn queue(slots: &Slots) -> Place {
    match slots.take_or_queue(2) {
        Admission::Place(place) => place,
        _ => panic!("the slot is taken, and two may wait"),
    }
}

/// Nobody is in flight, nobody waits, and the way without the lock is open again.
fn assert_idle(slots: &Slots) {
    assert_eq!((slots.in_flight(), slots.waiting()), (0, 0));
    assert!(slots.try_take().is_some());
}
