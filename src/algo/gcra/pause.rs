use std::time::{Duration, Instant};

use super::Bucket;

/// A time in which nothing goes, because a peer has asked for it.
impl Bucket {
    /// Lets nothing go before `until`, nor before what was said earlier. Time goes on paying, so that there may be a burst
    /// at the end.
    pub fn pause(&mut self, until: Instant) {
        self.opens = self.opens.max(until);
    }

    /// Ends a pause. No permit is there then: they come from now on.
    pub fn resume(&mut self, now: Instant) {
        if self.paused_for(now).is_zero() {
            return;
        }
        let ahead = u32::try_from(-self.available(now)).unwrap_or(0);
        // What time would have paid until the end of the pause was paid already, and is taken back with the rest.
        *self = Self::new(self.limit(), now);
        self.drain(now);
        if ahead > 0 {
            self.take(ahead, now);
        }
    }

    /// How long nothing goes, whatever is there; zero if there is no pause.
    pub fn paused_for(&self, now: Instant) -> Duration {
        self.opens.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::algo::gcra::Limit;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn start() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn nothing_goes_before_the_latest_end_that_was_said() {
        let now = start();
        // A row: how long the pauses are that are asked for at a time, and how long nothing goes from then on.
        for (steps, expected) in [
            (&[(0, 3000)][..], 3000),
            (&[(0, 3000), (0, 1000)], 3000),
            (&[(0, 1000), (500, 3000)], 3000),
            (&[(0, 3000), (1000, 2000)], 2000),
            (&[(0, 3000), (2999, 0)], 1),
            (&[(0, 3000), (3000, 0)], 0),
            (&[(0, 0)], 0),
        ] {
            let mut bucket = Bucket::new(Limit::new(10, SECOND), now);
            let mut at = now;
            for &(when, wait) in steps {
                at = now + ms(when);
                bucket.pause(at + ms(wait));
            }
            assert_eq!(bucket.paused_for(at), ms(expected), "{steps:?}");
            assert_eq!(bucket.due(1, at) - at, ms(expected), "{steps:?}");
            assert_eq!(bucket.due(10, at) - at, ms(expected), "{steps:?}");
            assert_eq!(bucket.available(at) > 0, expected == 0, "{steps:?}");
        }
    }

    #[test]
    fn a_pause_is_exact_however_permits_come() {
        let now = start();
        let limit = Limit::new(3, SECOND);
        for limit in [
            limit,
            limit.burst(1),
            limit.in_steps(),
            limit.sliding(),
            limit.warm_up(SECOND),
        ] {
            let mut bucket = Bucket::new(limit, now);
            bucket.take(1, now);
            bucket.pause(now + ms(2718));
            assert_eq!(bucket.due(1, now), now + ms(2718), "{limit:?}");
            assert_eq!(bucket.due(1, now + ms(1)), now + ms(2718), "{limit:?}");
            assert_eq!(bucket.available(now + ms(2717)), 0, "{limit:?}");
            assert!(bucket.available(now + ms(2718)) > 0, "{limit:?}");
            assert!(bucket.busy_for(now) >= ms(2718), "{limit:?}");
        }
    }

    #[test]
    fn a_limit_slower_than_the_pause_is_kept_as_well() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(1, 10 * SECOND), now);
        bucket.take(1, now);
        bucket.pause(now + 3 * SECOND);
        assert_eq!(bucket.due(1, now), now + 10 * SECOND);
    }

    #[test]
    fn another_limit_ends_no_pause_and_who_resumes_finds_an_empty_bucket() {
        let now = start();
        let at = now + ms(500);
        let limits = [
            Limit::new(10, SECOND),
            Limit::new(10, SECOND).sliding(),
            Limit::new(10, SECOND).in_steps(),
        ];
        for (limit, next) in limits.into_iter().zip([100, 1000, 1000]) {
            let mut bucket = Bucket::new(Limit::new(5, SECOND), now);
            bucket.pause(now + 60 * SECOND);
            bucket.reconfigure(limit, at);
            assert_eq!(bucket.due(1, at), now + 60 * SECOND, "{limit:?}");
            bucket.resume(at);
            assert_eq!(bucket.available(at), 0, "{limit:?}");
            assert_eq!(bucket.due(1, at), at + ms(next), "{limit:?}");
            // What was taken ahead stays so.
            bucket.pause(now + 60 * SECOND);
            bucket.take(12, at);
            bucket.resume(at);
            assert_eq!(bucket.available(at), -2, "{limit:?}");
            bucket.resume(at);
            assert_eq!(bucket.available(at), -2, "{limit:?}: there is no pause");
        }
    }

    proptest! {
        /// The definition: nothing goes in a pause, and from any moment on no more than a burst and what the time since is
        /// worth, those that were promised the end of a pause included.
        #[test]
        fn calls_go_as_soon_as_no_pause_and_no_span_of_time_forbids_it(
            permits in 1_u32..20,
            period in 1_u64..2000,
            burst in 1_u32..8,
            steps in prop::collection::vec((0_u64..1500, 1_u32..9, 0_u64..8, 0_u64..3000), 1..60),
        ) {
            let origin = start();
            let nanos = |nanos| origin + Duration::from_nanos(nanos);
            let limit = Limit::new(permits, Duration::from_nanos(period)).burst(burst);
            let mut bucket = Bucket::new(limit, origin);
            let mut taken: Vec<(u64, u32)> = Vec::new();
            let (mut now, mut opens) = (0, 0);
            for (passed, cost, then, wait) in steps {
                now += passed;
                if then == 0 {
                    bucket.pause(nanos(now + wait));
                    opens = opens.max(now + wait);
                }
                let cost = cost.min(burst);
                let mut due = now.max(opens);
                let earliest = due;
                let mut since = cost;
                for &(at, cost) in taken.iter().rev() {
                    since += cost;
                    let excess = u64::from(since.saturating_sub(burst));
                    due = due.max(at + (excess * period).div_ceil(u64::from(permits)));
                }
                prop_assert_eq!(bucket.due(cost.into(), nanos(now)), nanos(due));
                if due == earliest {
                    bucket.take(cost, nanos(now));
                    taken.push((due, cost));
                    if then == 1 {
                        bucket.give_back(cost, nanos(due), nanos(now));
                        taken.pop();
                    }
                }
            }
        }
    }
}
