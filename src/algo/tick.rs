//! Moments as numbers, for atomics.
//!
//! To subtract two moments costs a call more than all else that is done with the result. So every thread remembers the
//! tick that it is in, and most moments only have to be compared with its ends.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment, and the number of its tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) tick: u64,
}

impl Moment {
    #[inline]
    pub(crate) fn of(at: Instant) -> Self {
        Self { at, tick: tick(at) }
    }
}

/// The number of the tick in which `at` lies. It begins [`begin`] nanoseconds after the origin.
#[inline]
fn tick(at: Instant) -> u64 {
    match LAST.get() {
        Some(last) if last.begin <= at && at < last.end => last.number,
        _ => enter(at),
    }
}

/// When a tick begins, in nanoseconds since the origin.
#[inline]
pub(crate) fn begin(tick: u64) -> u64 {
    tick << LENGTH
}

/// Nanoseconds from the origin to `at`. The origin is the same for all that is asked in a process, and long before that.
pub(crate) fn nanos(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*ORIGIN.get_or_init(|| long_before(at)));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cold]
fn enter(at: Instant) -> u64 {
    let nanos = nanos(at);
    let number = nanos >> LENGTH;
    let since = Duration::from_nanos(nanos - begin(number));
    if let Some(began) = at.checked_sub(since) {
        LAST.set(Some(Tick {
            begin: began,
            end: began + Duration::from_nanos(begin(1)),
            number,
        }));
    }
    number
}

/// So long that clocks which tests have paused at different times are all behind it.
fn long_before(at: Instant) -> Instant {
    (0..32)
        .find_map(|halved| at.checked_sub(LONG / (1 << halved)))
        .unwrap_or(at)
}

#[derive(Clone, Copy)]
struct Tick {
    begin: Instant,
    end: Instant,
    number: u64,
}

thread_local! {
    static LAST: Cell<Option<Tick>> = const { Cell::new(None) };
}

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// A tick takes two to the power of this in nanoseconds: 17 ms.
const LENGTH: u32 = 24;
const LONG: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moment_lies_within_its_tick_in_whatever_order_it_is_asked(
            steps in prop::collection::vec((any::<bool>(), 0_u64..100_000_000), 1..100),
        ) {
            let mut at = crate::clock::now();
            for (forward, step) in steps {
                let step = Duration::from_nanos(step);
                at = if forward { at + step } else { at - step };
                let (tick, nanos) = (tick(at), nanos(at));
                prop_assert!((begin(tick)..begin(tick + 1)).contains(&nanos));
                let next = at + Duration::from_nanos(begin(tick + 1) - nanos);
                prop_assert_eq!(super::tick(next), tick + 1);
                prop_assert_eq!(super::tick(next - Duration::from_nanos(1)), tick);
            }
        }
    }
}
