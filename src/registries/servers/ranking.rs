//! In which order to ask several servers, by how they answered so far.

use std::time::{Duration, Instant};

use crate::algo::Rng;
use crate::clock;
use crate::rng::ThreadRng;

/// How the servers of a registry stand, each of which goes by its index.
pub(super) struct Ranking {
    preferred: Option<Preferred>,
    /// Until when each is in quarantine.
    quarantines: Vec<Option<Instant>>,
}

/// The one that answered last.
#[derive(Clone, Copy)]
struct Preferred {
    index: usize,
    until: Instant,
}

impl Ranking {
    /// Of `count` servers, of which nothing is known.
    pub(super) fn new(count: usize) -> Self {
        Self {
            preferred: None,
            quarantines: vec![None; count],
        }
    }

    pub(super) fn answered(&mut self, index: usize, now: Instant) {
        self.quarantines[index] = None;
        let lasts = |preferred: &Preferred| preferred.index == index && preferred.until > now;
        if !self.preferred.as_ref().is_some_and(lasts) {
            let until = clock::after(now, SESSION.mul_f64(0.5 + ThreadRng.unit()));
            self.preferred = Some(Preferred { index, until });
        }
    }

    pub(super) fn quarantine(&mut self, index: usize, now: Instant) {
        self.quarantines[index] = Some(clock::after(now, QUARANTINE));
    }

    /// The one that answered last, then as they are wanted, and those in quarantine after all others.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let preferred = self.preferred.filter(|preferred| preferred.until > now);
        let preferred = preferred.map(|preferred| preferred.index);
        let mut order: Vec<_> = (0..self.quarantines.len()).collect();
        order.sort_by_key(|&index| {
            let quarantine = self.quarantines[index].filter(|&until| until > now);
            (quarantine, Some(index) != preferred)
        });
        order
    }
}

/// As long as an election and a restart take, and no longer than callers should do without their nearest server.
const QUARANTINE: Duration = Duration::from_secs(30);
/// How long one that answers is kept before the nearest is asked again, give or take half: Eureka's own session.
const SESSION: Duration = Duration::from_secs(20 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks, where those in `broken` fail, and says who was asked.
    fn asked(ranking: &mut Ranking, broken: &[usize], now: Instant) -> Vec<usize> {
        let mut asked = Vec::new();
        for index in ranking.order(now) {
            asked.push(index);
            if !broken.contains(&index) {
                ranking.answered(index, now);
                break;
            }
            ranking.quarantine(index, now);
        }
        asked
    }

    #[test]
    fn the_one_that_answers_is_kept_and_a_quarantine_ends() {
        let (mut ranking, now) = (Ranking::new(3), clock::now());
        assert_eq!(asked(&mut ranking, &[], now), [0]);
        assert_eq!(asked(&mut ranking, &[0], now), [0, 1]);
        assert_eq!(asked(&mut ranking, &[0], now), [1], "kept");
        let asked_next = asked(&mut ranking, &[1], now);
        assert_eq!(asked_next, [1, 2], "the first is in quarantine");
        let now = now + QUARANTINE;
        let asked_next = asked(&mut ranking, &[2], now);
        assert_eq!(asked_next, [2, 0], "the quarantine has ended");
        let all = [0, 1, 2];
        assert_eq!(asked(&mut ranking, &all, now), all, "the last resort");
        assert_eq!(asked(&mut ranking, &[], now), [0]);
    }

    #[test]
    fn those_in_quarantine_come_in_the_order_in_which_it_ends() {
        let (mut ranking, now) = (Ranking::new(3), clock::now());
        let second = Duration::from_secs(1);
        ranking.quarantine(1, now);
        ranking.quarantine(0, now + second);
        assert_eq!(ranking.order(now + second), [2, 1, 0]);
    }

    #[test]
    fn after_a_session_the_nearest_is_asked_again() {
        let (mut ranking, now) = (Ranking::new(3), clock::now());
        assert_eq!(asked(&mut ranking, &[0], now), [0, 1]);
        let now = now + SESSION.mul_f64(0.4);
        assert_eq!(asked(&mut ranking, &[], now), [1]);
        let now = now + SESSION.mul_f64(1.2);
        assert_eq!(asked(&mut ranking, &[], now), [0]);
    }
}
