//! What the loom models share.
//!
//! `cargo test` runs them with up to two preemptions of a thread, `scripts/loom` with more; `LOOM_MAX_PREEMPTIONS` sets it.

use std::cell::Cell;
use std::ops::{Deref, Index};
use std::sync::atomic::Ordering;

/// Runs through the interleavings of `run`.
pub(crate) fn check(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(run);
}

loom::thread_local! {
    static LANE: Cell<usize> = Cell::new(0);
}

/// The lane of the current thread: the first, which all share, unless it has taken another.
pub(crate) fn lane() -> usize {
    LANE.with(Cell::get)
}

/// What the current thread has of `lanes`.
pub(crate) fn mine<L: Index<usize>>(lanes: &L) -> (&L::Output, usize) {
    let lane = lane();
    (&lanes[lane], lane)
}

pub(crate) fn take_lane(lane: usize) {
    LANE.with(|mine| mine.set(lane));
}

/// As few lanes as there can be.
pub(crate) fn lanes() -> usize {
    2
}

/// An atomic that reads as it writes. loom remembers the last access to an atomic alone, so a load that follows another
/// thread's load hides it from the write that comes next, and an interleaving is lost.
macro_rules! atomic {
    ($name:ident of $value:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        impl $name {
            #[allow(dead_code)]
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, _: Ordering) -> $value {
                self.0.fetch_or(0, Ordering::AcqRel)
            }

            #[allow(dead_code)]
            pub(crate) fn store(&self, value: $value, _: Ordering) {
                self.0.swap(value, Ordering::AcqRel);
            }

            #[allow(dead_code)]
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                next: impl Fn($value) -> Option<$value>,
            ) -> Result<$value, $value> {
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

        impl Deref for $name {
            type Target = loom::sync::atomic::$name;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    };
}

atomic!(AtomicU64 of u64);
atomic!(AtomicUsize of usize);
