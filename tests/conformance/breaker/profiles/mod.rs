//! What each profile's configuration means, knob for knob.

use std::time::Duration;

pub(super) mod failsafe_go;
pub(super) mod hystrix;
pub(super) mod polly;
pub(super) mod resilience4j;
pub(super) mod sentinel;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A wait that is over only past its deadline, not at it.
fn after(millis: u64) -> Duration {
    ms(millis) + TICK
}

/// The shortest time there is.
pub(super) const TICK: Duration = Duration::from_nanos(1);
