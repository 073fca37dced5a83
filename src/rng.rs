//! The only source of chance: one generator a thread, which can be seeded to repeat a run.

use crate::algo::Rng;

/// The generator of the current thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadRng;

impl Rng for ThreadRng {
    #[allow(clippy::disallowed_methods)]
    fn next_u64(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

/// Seeds the current thread's generator: the same seed gives the same run.
pub fn seed(seed: u64) {
    fastrand::seed(seed);
}
