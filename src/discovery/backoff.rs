use std::time::Duration;

use crate::algo::Rng;
use crate::algo::backoff::{self as algo, Jitter, Waits};

/// Waits between attempts on a registry that fails: decorrelated jitter from 1 to 60 s, so that a fleet does not ask
/// in step.
#[derive(Debug)]
pub(super) struct Backoff {
    backoff: algo::Backoff,
    waits: Waits,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let backoff = algo::Backoff::constant(SHORTEST).cap(LONGEST);
        Self {
            backoff: backoff.jitter(Jitter::Decorrelated),
            waits: Waits::default(),
        }
    }

    /// The next wait.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        self.backoff.next(&mut self.waits, rng)
    }
}

/// `wait` shortened by up to a fifth, by chance.
pub(super) fn jittered(wait: Duration, rng: &mut impl Rng) -> Duration {
    wait.mul_f64(1.0 - rng.unit() / 5.0)
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{self, ThreadRng};

    #[test]
    fn waits_grow_from_one_second_to_a_minute_and_never_agree() {
        rng::seed(7);
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..1000).map(|_| backoff.next(&mut ThreadRng)).collect();
        assert!(waits[0] <= SHORTEST * 3);
        assert!(waits.iter().all(|wait| (SHORTEST..=LONGEST).contains(wait)));
        assert!(waits.iter().max() > Some(&(LONGEST / 2)));
        assert!(waits.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
