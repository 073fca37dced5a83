//! The flow on loom's primitives, so that the interleavings of successes and steps of the breaker are run through.

use std::sync::Arc;
use std::time::Instant;

use loom::thread;

use self::flow::{Flow, Given};
use crate::algo::breaker::{Breaker, Settings};
use crate::algo::tick::Moment;
use crate::clock;
use crate::model::{check, take_lane};

mod sync {
    pub(super) use loom::sync::atomic::Ordering;

    pub(super) use crate::model::{AtomicU64, lanes, mine};
}

#[path = "flow.rs"]
#[allow(clippy::duplicate_mod, dead_code)]
mod flow;

#[test]
fn no_success_is_lost_beside_a_step_and_none_is_counted_twice() {
    check(|| {
        let now = clock::now();
        let breaker = Breaker::new(Settings::default(), now);
        let flow = flow(&breaker, now);
        let epoch = flow.epoch().unwrap();
        let others = [0, 0, 1].map(|lane| {
            let flow = Arc::clone(&flow);
            thread::spawn(move || {
                take_lane(lane);
                assert!(flow.succeed(epoch, now, Moment::of(now)));
            })
        });
        let mut given = Given::new();
        let early = given.more(&flow, epoch);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(early + given.more(&flow, epoch), 3);
    });
}

#[test]
fn a_success_of_an_earlier_state_is_dropped_and_does_not_hide_a_later_one() {
    check(|| {
        let now = clock::now();
        let mut breaker = Breaker::new(Settings::default(), now);
        let flow = flow(&breaker, now);
        let (earlier, mut given) = (flow.epoch().unwrap(), Given::new());
        let late = {
            let flow = Arc::clone(&flow);
            thread::spawn(move || flow.succeed(earlier, now, Moment::of(now)))
        };
        breaker.close();
        flow.set(&breaker, now);
        let epoch = flow.epoch().unwrap();
        assert!(flow.succeed(epoch, now, Moment::of(now)));
        assert_eq!(given.more(&flow, epoch), 1);
        late.join().unwrap();
        assert_eq!(given.more(&flow, epoch), 0);
    });
}

fn flow(breaker: &Breaker, now: Instant) -> Arc<Flow> {
    let flow = Flow::new();
    flow.start(breaker, now);
    Arc::new(flow)
}
