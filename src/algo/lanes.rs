//! State that threads change without waiting for each other's cache lines.
//!
//! A word that every call changes travels from core to core, which costs more than all the rest of a call. So it is
//! kept in lanes: each thread changes its own, and who wants the whole adds them up. There are as many lanes as threads
//! that are likely to make calls, and one more for all other threads.

use std::cell::Cell;
use std::mem;
use std::ops::{Deref, Index};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// One of something for each lane.
#[derive(Debug)]
pub(crate) struct Lanes<T>(Box<[Apart<T>]>);

impl<T> Lanes<T> {
    pub(crate) fn new(lanes: usize, make: impl Fn() -> T) -> Self {
        Self((0..lanes).map(|_| Apart(make())).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|it| &it.0)
    }
}

impl<T> Index<usize> for Lanes<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, lane: usize) -> &T {
        &self.0[lane].0
    }
}

/// A shared value of which each call holds a share: as an [`Arc`], but its owners are counted by lane.
#[derive(Debug)]
pub(crate) struct Spread<T> {
    value: Arc<T>,
    shares: Arc<[Share<T>]>,
}

impl<T> Spread<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        let share = |_| Share(Arc::new(Apart(Arc::clone(&value))));
        Self {
            shares: (0..lanes()).map(share).collect(),
            value,
        }
    }

    #[inline(always)]
    pub(crate) fn share(&self) -> Share<T> {
        let shares = &self.shares;
        shares
            .get(LANE.get())
            .unwrap_or_else(|| first_share(shares))
            .clone()
    }
}

impl<T> Clone for Spread<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            shares: Arc::clone(&self.shares),
        }
    }
}

impl<T> Deref for Spread<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A share of a [`Spread`] value, which may outlive it.
#[derive(Debug)]
pub(crate) struct Share<T>(Arc<Apart<Arc<T>>>);

impl<T> Clone for Share<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Share<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// What a call takes along of a spread value: a copy of what is small and owns nothing, else a share.
#[derive(Debug)]
pub(crate) enum Along<T> {
    Copy(T),
    Share(Share<T>),
}

impl<T: Clone> Spread<T> {
    #[inline(always)]
    pub(crate) fn along(&self) -> Along<T> {
        if const { !mem::needs_drop::<T>() && size_of::<T>() <= size_of::<[usize; 4]>() } {
            Along::Copy(T::clone(self))
        } else {
            Along::Share(self.share())
        }
    }
}

impl<T> Deref for Along<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Copy(value) => value,
            Self::Share(share) => share,
        }
    }
}

/// On cache lines of its own: two, for processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// The lane that is shared by all threads without one of their own: what is kept there needs an atomic step, whereas
/// any other lane is changed by one thread alone.
pub(crate) const SHARED: usize = 0;

#[cold]
fn first_share<T>(shares: &[Share<T>]) -> &Share<T> {
    &shares[lane()]
}

/// What the current thread has of `lanes`, and in which lane that is.
#[inline(always)]
pub(crate) fn mine<T>(lanes: &Lanes<T>) -> (&T, usize) {
    let lane = LANE.get();
    // One comparison says that the thread has a lane and that it is one of these.
    match lanes.0.get(lane) {
        Some(mine) => (&mine.0, lane),
        None => first(lanes),
    }
}

#[cold]
fn first<T>(lanes: &Lanes<T>) -> (&T, usize) {
    let lane = lane();
    (&lanes[lane], lane)
}

/// The current thread's lane.
#[inline(always)]
pub(crate) fn lane() -> usize {
    match LANE.get() {
        NONE => take_lane(),
        lane => lane,
    }
}

#[cold]
fn take_lane() -> usize {
    // A thread that is about to end has no use for one.
    let lane = LEASE
        .try_with(|lease| {
            let lane = all().free().pop().unwrap_or(SHARED);
            lease.0.set(lane);
            lane
        })
        .unwrap_or(SHARED);
    LANE.set(lane);
    lane
}

/// How many lanes there are.
pub(crate) fn lanes() -> usize {
    all().count
}

struct All {
    count: usize,
    /// Those that are nobody's. The lock hands a lane over with all that its last thread wrote in it.
    free: Mutex<Vec<usize>>,
}

impl All {
    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all() -> &'static All {
    static ALL: OnceLock<All> = OnceLock::new();
    ALL.get_or_init(|| {
        // The workers of a runtime, and as many others that happen to make calls.
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        let count = 1 + (2 * cores).min(MOST);
        All {
            count,
            free: Mutex::new((SHARED + 1..count).rev().collect()),
        }
    })
}

/// A thread's right to its lane, given back when the thread ends.
struct Lease(Cell<usize>);

impl Drop for Lease {
    fn drop(&mut self) {
        LANE.set(SHARED);
        let lane = self.0.get();
        if lane != SHARED {
            all().free().push(lane);
        }
    }
}

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(NONE) };
    static LEASE: Lease = const { Lease(Cell::new(SHARED)) };
}

const NONE: usize = usize::MAX;

/// Beyond this, more lanes cost more memory and more to add up than they save.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_one_running_threads_alone_and_the_rest_share_one() {
        let barrier = std::sync::Barrier::new(3 * lanes());
        let mut taken: Vec<usize> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3 * lanes())
                .map(|_| {
                    scope.spawn(|| {
                        let mine = lane();
                        barrier.wait();
                        assert_eq!(mine, lane());
                        mine
                    })
                })
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        taken.retain(|&lane| lane != SHARED);
        let all = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), all);
        assert!(taken.iter().all(|&lane| lane < lanes()));
    }

    #[test]
    fn a_share_keeps_the_value_and_the_last_one_drops_it() {
        let value = Arc::new(());
        let spread = Spread::new(Arc::clone(&value));
        drop(spread.clone());
        let share = spread.share();
        drop(spread);
        assert_eq!(Arc::strong_count(&*share), 2);
        drop(share);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
