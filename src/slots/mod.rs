//! So many at once, and a line in front: what the layers that limit calls under way stand on.
//!
//! A call that finds a slot costs one compare-and-swap to enter and one to leave, in the thread's own lane while most slots
//! are free, so that threads do not wait for each other's cache lines. The line and its lock are touched only while
//! somebody waits.

mod counter;
mod line;
mod place;
mod shared;
mod shares;
mod turns;
mod wait;

pub use counter::Permit;
pub(crate) use counter::{Admission, Slots};
pub use line::Order;
pub(crate) use shares::Shares;
pub(crate) use wait::Wait;

use self::shared::Shared;
use crate::slab::Slab;

fn slab() -> &'static Slab<(), Shared> {
    static SLAB: Slab<(), Shared> = Slab::new();
    &SLAB
}

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(super) use std::sync::{Arc, Mutex, MutexGuard};

    pub(super) use crate::algo::lanes::{lanes, mine};
}

// The same slots, on loom's primitives.
#[cfg(test)]
#[allow(clippy::duplicate_mod)]
mod model;
