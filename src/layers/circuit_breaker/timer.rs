use std::hash::Hash;
use std::pin::pin;
use std::time::Duration;

use super::{CircuitBreaker, CircuitBreakers};
use crate::algo::breaker::State;
use crate::clock;
use crate::rng::ThreadRng;

impl CircuitBreaker {
    /// Lets time take effect at its moment and not at the next call or look, for as long as this is polled: an open
    /// breaker turns half-open when its wait is over, and a half-open one has decided at its limit. It never ends; spawn
    /// it where listeners should hear of these changes though nobody calls.
    pub async fn keep_time(&self) {
        loop {
            let mut changed = pin!(self.changes());
            changed.as_mut().enable();
            match self.catch_up() {
                Some(wait) => tokio::select! {
                    () = changed => {}
                    () = clock::until(clock::after(clock::now(), wait)) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Lets the time up to now take effect. Returns when there will be more to do, if that is known.
    fn catch_up(&self) -> Option<Duration> {
        self.with(|breaker, now| breaker.keep_time(now, &mut ThreadRng))
    }
}

impl<K: Hash + Eq> CircuitBreakers<K> {
    /// As [`CircuitBreaker::keep_time`], for every breaker that there is or will be, until it is idle: it is forgotten
    /// then. All are looked at when one changes or is due, at most 100 times a second, so that time may take effect up to
    /// 10 ms late where many change at once.
    pub async fn keep_time(&self) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            // Else one that nobody calls any more would turn half-open and open for ever.
            self.shared.family.sweep();
            let (now, mut next) = (clock::now(), None::<Duration>);
            self.shared.family.each(|_, member| {
                let breaker = member.breaker();
                let (state, _) = breaker.standing(now);
                // The others are left alone: calls flow through them.
                if matches!(state, State::Open | State::HalfOpen) {
                    next = next.into_iter().chain(breaker.catch_up()).min();
                }
            });
            match next {
                Some(wait) => tokio::select! {
                    () = changed => clock::sleep(APART).await,
                    () = clock::until(clock::after(clock::now(), wait.max(APART))) => {}
                },
                None => {
                    changed.await;
                    clock::sleep(APART).await;
                }
            }
        }
    }
}

/// Between two looks at all breakers of a family.
const APART: Duration = Duration::from_millis(10);
