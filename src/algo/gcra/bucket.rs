use std::time::{Duration, Instant};

use super::limit::{LONGEST, Limit, Refill};
use super::log::Log;
use super::warm_up::{time_for, worth};

/// What was taken under a [`Limit`] and not yet paid back by time.
#[derive(Clone, Debug)]
pub struct Bucket {
    limit: Limit,
    debt: u128,
    /// Up to when time has paid.
    at: Instant,
    /// For how long it has been in use, as far as a warm-up goes.
    warmth: u128,
    used: Option<Instant>,
    /// What the debt is made of, where the limit is sliding.
    log: Log,
    /// When it ends that nothing goes. Until then it is as if it were that moment.
    pub(super) opens: Instant,
}

impl Bucket {
    /// A full bucket; with a warm-up, a cold one.
    pub fn new(limit: Limit, now: Instant) -> Self {
        let mut bucket = Self {
            limit,
            debt: 0,
            at: now,
            warmth: 0,
            used: None,
            log: Log::default(),
            opens: now,
        };
        bucket.cool(now);
        bucket
    }

    /// The limit it goes by.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// When `permits` may go if they are taken now: `now` if they are there. With 0, when those that were taken last
    /// may go.
    ///
    /// More than a burst are never there together. Taken ahead they may go once the rest of them has come too.
    pub fn due(&mut self, permits: u64, now: Instant) -> Instant {
        let now = self.advance(now);
        let debt = self.debt + u128::from(permits) * self.limit.price();
        // None goes before those that were taken before it.
        let now = now.max(self.log.last().unwrap_or(self.at));
        if permits == 0 && self.log.last().is_some() {
            return now;
        }
        match debt.saturating_sub(self.limit.credit()) {
            0 => now,
            owed => self.paid(owed).max(now),
        }
    }

    /// Takes permits, also where they are not there yet; see [`due`](Self::due).
    pub fn take(&mut self, permits: u32, now: Instant) {
        if let Refill::Sliding = self.limit.refill {
            let goes = self.due(u64::from(permits), now);
            self.log.push(goes, permits);
        }
        let now = self.advance(now);
        self.debt += u128::from(permits) * self.limit.price();
        self.used = Some(now);
    }

    /// Puts back permits that could go at `then` and were not used: as many of them as time cannot have paid since.
    pub fn give_back(&mut self, permits: u32, then: Instant, now: Instant) {
        let now = self.advance(now);
        let price = u128::from(permits) * self.limit.price();
        let since = now.saturating_duration_since(then).as_nanos();
        let back = match self.limit.refill {
            Refill::Sliding if self.log.remove(then, permits) => price,
            Refill::Sliding => 0,
            _ => price.saturating_sub(since * u128::from(self.limit.permits)),
        };
        self.debt = self.debt.saturating_sub(back);
    }

    /// Takes whatever is there.
    pub fn drain(&mut self, now: Instant) {
        if let Ok(left @ 1..) = u32::try_from(self.available(now)) {
            self.take(left, now);
        }
    }

    /// Goes by another limit from now on. What was taken stays taken, permit for permit, and time pays it at the new
    /// rate.
    pub fn reconfigure(&mut self, limit: Limit, now: Instant) {
        let now = self.advance(now);
        let (old, new) = (self.limit.price(), limit.price());
        // In whole permits and the rest, so that the product stays small.
        self.debt = self.debt / old * new + (self.debt % old * new).div_ceil(old);
        self.at = self.at.max(now);
        if limit.refill != Refill::Sliding {
            self.log = Log::default();
        } else if self.limit.refill != Refill::Sliding {
            // What was taken before there was a log counts as taken now.
            let permits = u32::try_from(self.debt.div_ceil(new)).unwrap_or(u32::MAX);
            self.debt = u128::from(permits) * new;
            self.log.push(self.at, permits);
        }
        self.limit = limit;
    }

    /// How many permits are there: below 0 as many as were taken ahead. None is in a [pause](Self::pause).
    pub fn available(&mut self, now: Instant) -> i64 {
        let is_paused = self.advance(now) > now;
        let price = self.limit.price();
        let left = |units: u128| i64::try_from(units).unwrap_or(i64::MAX);
        match self.limit.credit().checked_sub(self.debt) {
            Some(_) if is_paused => 0,
            Some(rest) => left(rest / price),
            None => -left((self.debt - self.limit.credit()).div_ceil(price)),
        }
    }

    /// How long until it is as if it were new; zero if it is.
    pub fn busy_for(&mut self, now: Instant) -> Duration {
        let opens = self.advance(now);
        let paid = match self.debt.saturating_sub(self.limit.first_debt()) {
            0 => opens,
            owed => self.paid(owed),
        };
        let cold = match (self.limit.refill, self.used) {
            (Refill::WarmUp(span), Some(used)) => used + span,
            _ => opens,
        };
        paid.max(cold).saturating_duration_since(now)
    }

    /// Lets time pay up to `now`, or to the end of a pause if that is later, and says which. A moment that is passed in
    /// late changes nothing.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = now.max(self.opens);
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let price = self.limit.price();
        let permits = u128::from(self.limit.permits);
        let (span, paid) = match self.limit.refill {
            Refill::Smooth => (passed, passed * permits),
            Refill::Steps => {
                let whole = passed - passed % price;
                (whole, whole * permits)
            }
            Refill::WarmUp(span) => {
                let paying = worth(self.warmth + passed, span) - worth(self.warmth, span);
                (passed, paying * permits)
            }
            Refill::Sliding => {
                let gone = self.log.forget(now, self.limit.period);
                (passed, u128::from(gone) * price)
            }
        };
        self.debt = self.debt.saturating_sub(paid);
        self.at += nanos(span);
        self.warmth += span;
        self.cool(now);
        now
    }

    /// Makes it cold if it was not in use for so long.
    fn cool(&mut self, now: Instant) {
        let Refill::WarmUp(span) = self.limit.refill else {
            return;
        };
        let idle = |used| now.saturating_duration_since(used) >= span;
        if self.used.is_none_or(idle) {
            self.warmth = 0;
            self.debt = self.debt.max(self.limit.first_debt());
        }
    }

    /// When time has paid so much more of the debt.
    fn paid(&self, units: u128) -> Instant {
        let paying = units.div_ceil(u128::from(self.limit.permits));
        let wait = match self.limit.refill {
            Refill::Smooth => paying,
            Refill::Steps => paying.next_multiple_of(self.limit.price()),
            Refill::WarmUp(span) => time_for(worth(self.warmth, span) + paying, span) - self.warmth,
            Refill::Sliding => {
                let permits = u64::try_from(units / self.limit.price()).unwrap_or(u64::MAX);
                return self.log.paid(permits, &self.limit, self.at);
            }
        };
        self.at
            .checked_add(nanos(wait))
            .unwrap_or(self.at + LONGEST)
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        crate::clock::now()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How long a bucket says that `permits` would have to wait.
    fn wait(bucket: &mut Bucket, permits: u64, now: Instant) -> Duration {
        bucket.due(permits, now) - now
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(10, SECOND).burst(3), now);
        let waits: Vec<_> = (0..6)
            .map(|_| {
                let wait = wait(&mut bucket, 1, now);
                bucket.take(1, now);
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        assert_eq!(bucket.available(now), -3);
        assert_eq!(bucket.available(now + ms(250)), -1);
        assert_eq!(bucket.available(now + SECOND), 3);
    }

    #[test]
    fn no_idle_time_is_worth_more_than_a_burst() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(2, SECOND), now);
        bucket.take(3, now);
        let later = now + Duration::from_secs(100);
        assert_eq!(bucket.available(later), 2);
        bucket.take(2, later);
        assert_eq!(wait(&mut bucket, 1, later), ms(500));
    }

    #[test]
    fn a_rate_that_is_no_whole_number_of_nanoseconds_is_kept_for_years() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(3, SECOND).burst(2), now);
        let mut at = now;
        for _ in 0..300_001 {
            at = bucket.due(1, at);
            bucket.take(1, at);
        }
        assert_eq!(bucket.due(1, at) - now, Duration::from_secs(100_000));
    }

    #[test]
    fn steps_come_together_at_the_end_of_a_period() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(3, ms(10)).in_steps(), now);
        let at = now + ms(11);
        let waits: Vec<_> = (0..7)
            .map(|_| {
                let wait = wait(&mut bucket, 1, at);
                bucket.take(1, at);
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 9, 9, 9, 19]);
        assert_eq!(bucket.available(now + ms(19)), -4);
        assert_eq!(bucket.available(now + ms(20)), -1);
        assert_eq!(bucket.available(now + ms(40)), 3);
    }

    #[test]
    fn more_than_a_sliding_limit_goes_a_period_later_and_does_not_wait_for_itself() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(2, SECOND).sliding(), now);
        assert_eq!(bucket.due(3, now), now + SECOND);
        bucket.take(3, now);
        assert_eq!(bucket.due(0, now), now + SECOND);
        bucket.give_back(3, now + SECOND, now);
        assert_eq!(bucket.available(now), 2);
    }

    #[test]
    fn a_sliding_limit_takes_over_a_debt_and_hands_it_on() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(4, SECOND), now);
        bucket.take(3, now);
        bucket.reconfigure(Limit::new(4, SECOND).sliding(), now + ms(100));
        assert_eq!(bucket.available(now + ms(100)), 1);
        bucket.take(1, now + ms(200));
        assert_eq!(bucket.due(1, now + ms(200)), now + ms(1100));
        bucket.reconfigure(Limit::new(4, SECOND), now + ms(1100));
        assert_eq!(bucket.available(now + ms(1100)), 3);
        assert_eq!(bucket.available(now + ms(1350)), 4);
    }

    #[test]
    fn a_warm_up_grows_from_a_third_and_is_worth_two_thirds() {
        let now = start();
        let limit = Limit::new(90, SECOND).warm_up(Duration::from_secs(10));
        let mut bucket = Bucket::new(limit, now);
        let mut at = now;
        let mut taken = Vec::new();
        for second in 1..=12 {
            let mut count = 0;
            while bucket.due(1, at) < now + second * SECOND {
                at = bucket.due(1, at);
                bucket.take(1, at);
                count += 1;
            }
            taken.push(count);
        }
        // The integral of 30 + 60·t/10, with one permit at the start: what comes at the full second is the next one's.
        assert_eq!(taken[..3], [33, 39, 45]);
        assert_eq!(taken[10..], [90, 90]);
        assert_eq!(taken[..10].iter().sum::<u32>(), 600);
    }

    #[test]
    fn a_bucket_in_use_stays_warm_and_an_idle_one_cools() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(10, SECOND).warm_up(SECOND), now);
        let mut at = now;
        while at < now + 10 * SECOND {
            at = bucket.due(1, at);
            bucket.take(1, at);
        }
        at += ms(999);
        assert!(bucket.available(at) > 8, "warm, and the burst is back");
        assert_eq!(bucket.busy_for(at), ms(1));
        at += ms(1);
        assert_eq!(bucket.available(at), 1);
        assert_eq!(bucket.busy_for(at), Duration::ZERO);
        // However long and however often it is looked at.
        at += 100 * SECOND;
        assert_eq!(bucket.available(at), 1);
        bucket.take(1, at);
        let cold = wait(&mut bucket, 1, at);
        assert!(cold > ms(200) && cold < ms(300), "{cold:?}");
    }

    #[test]
    fn another_limit_finds_the_debt_permit_for_permit() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(10, SECOND), now);
        bucket.take(14, now);
        assert_eq!(wait(&mut bucket, 0, now), ms(400));
        bucket.reconfigure(Limit::new(100, SECOND).burst(10), now);
        assert_eq!(bucket.available(now), -4);
        assert_eq!(wait(&mut bucket, 0, now), ms(40));
        bucket.reconfigure(Limit::new(1, SECOND).burst(5), now + ms(40));
        assert_eq!(bucket.available(now + ms(40)), -5);
        assert_eq!(wait(&mut bucket, 1, now + ms(40)), 6 * SECOND);
    }

    #[test]
    fn what_is_given_back_late_is_not_paid_twice() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(1, SECOND).burst(2), now);
        bucket.take(1, now);
        // Time has paid the first one; the second is another's.
        bucket.take(1, now + SECOND);
        bucket.give_back(1, now, now + SECOND);
        assert_eq!(bucket.available(now + SECOND), 1);
        bucket.give_back(1, now + SECOND, now + SECOND);
        assert_eq!(bucket.available(now + SECOND), 2);
    }

    #[test]
    fn a_drained_bucket_fills_again_and_a_debt_is_no_smaller_for_it() {
        let now = start();
        let mut bucket = Bucket::new(Limit::new(10, SECOND), now);
        bucket.drain(now);
        assert_eq!(bucket.available(now), 0);
        assert_eq!(bucket.available(now + ms(100)), 1);
        bucket.take(5, now + ms(100));
        bucket.drain(now + ms(100));
        assert_eq!(bucket.available(now + ms(100)), -4);
    }

    #[test]
    fn the_greatest_and_the_smallest_limits_hold() {
        let now = start();
        let greatest = Limit::new(u32::MAX, Duration::from_nanos(1));
        let slowest = Limit::new(1, LONGEST).burst(u32::MAX);
        for limit in [
            greatest,
            slowest,
            slowest.warm_up(LONGEST),
            slowest.in_steps(),
        ] {
            let mut bucket = Bucket::new(limit, now);
            bucket.take(u32::MAX, now);
            bucket.take(u32::MAX, now);
            let _ = bucket.due(u64::from(u32::MAX), now);
            bucket.reconfigure(greatest, now + LONGEST);
            bucket.reconfigure(slowest, now + LONGEST);
            let _ = bucket.busy_for(now);
        }
    }

    #[test]
    fn impossible_limits_panic() {
        let limits: [fn() -> Limit; 5] = [
            || Limit::new(0, SECOND),
            || Limit::new(1, Duration::ZERO),
            || Limit::new(1, Duration::MAX),
            || Limit::new(1, SECOND).burst(0),
            || Limit::new(1, SECOND).warm_up(Duration::ZERO),
        ];
        for (i, limit) in limits.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(limit).is_err(), "limit {i}");
        }
    }

    proptest! {
        /// The definition: from any moment on there are never more than a burst and what the time since is worth.
        #[test]
        fn calls_go_as_soon_as_no_span_of_time_holds_too_many(
            permits in 1_u32..20,
            period in 1_u64..2000,
            burst in 1_u32..8,
            calls in prop::collection::vec((0_u64..1500, 1_u32..9, 0_u8..8), 1..60),
        ) {
            let origin = start();
            let limit = Limit::new(permits, Duration::from_nanos(period)).burst(burst);
            let mut bucket = Bucket::new(limit, origin);
            let mut taken: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (pause, cost, then) in calls {
                now += pause;
                let cost = cost.min(burst);
                let mut due = now;
                let mut since = cost;
                for &(at, cost) in taken.iter().rev() {
                    since += cost;
                    let excess = u64::from(since.saturating_sub(burst));
                    due = due.max(at + (excess * period).div_ceil(u64::from(permits)));
                }
                let at = origin + Duration::from_nanos(now);
                prop_assert_eq!(bucket.due(cost.into(), at), origin + Duration::from_nanos(due));
                if due == now {
                    bucket.take(cost, at);
                    taken.push((now, cost));
                    // Given back at once it was never taken.
                    if then == 0 {
                        bucket.give_back(cost, at, at);
                        taken.pop();
                    }
                }
            }
        }

        #[test]
        fn a_sliding_limit_looks_at_every_span_of_a_period(
            permits in 1_u32..6,
            calls in prop::collection::vec((0_u64..600, 1_u32..6, 0_u8..8), 1..60),
        ) {
            let origin = start();
            let limit = Limit::new(permits, SECOND).sliding();
            let mut bucket = Bucket::new(limit, origin);
            let mut taken: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (pause, cost, then) in calls {
                now += pause;
                let cost = cost.min(permits);
                let fits = |at: u64| {
                    let recent = taken.iter().filter(|it| it.0 + 1000 > at);
                    recent.map(|it| it.1).sum::<u32>() + cost <= permits
                };
                let due = (now..).find(|at| fits(*at)).expect("one day");
                let at = origin + ms(now);
                prop_assert_eq!(bucket.due(cost.into(), at), origin + ms(due));
                if then == 0 {
                    // Taken ahead and given back.
                    bucket.take(cost, at);
                    prop_assert_eq!(bucket.due(0, at), origin + ms(due));
                    bucket.give_back(cost, origin + ms(due), at);
                } else if due == now {
                    bucket.take(cost, at);
                    taken.push((now, cost));
                }
            }
        }

        #[test]
        fn what_goes_ahead_in_a_sliding_limit_goes_when_it_was_said(
            permits in 1_u32..6,
            before in prop::collection::vec(0_u64..400, 0..6),
            ahead in 1_u64..30,
        ) {
            let mut now = start();
            let mut bucket = Bucket::new(Limit::new(permits, SECOND).sliding(), now);
            for pause in before {
                now += ms(pause);
                if bucket.due(1, now) == now {
                    bucket.take(1, now);
                }
            }
            let said: Vec<_> = (1..=ahead).map(|n| bucket.due(n, now)).collect();
            for due in said {
                bucket.take(1, now);
                prop_assert_eq!(bucket.due(0, now), due);
            }
        }

        #[test]
        fn steps_are_counted_as_a_plain_counter_counts_them(
            permits in 1_u32..10,
            burst in 1_u32..10,
            calls in prop::collection::vec((0_u64..250, 1_u32..12), 1..60),
        ) {
            let origin = start();
            let mut bucket = Bucket::new(Limit::new(permits, ms(100)).burst(burst).in_steps(), origin);
            let (mut now, mut period, mut left) = (0, 0, i64::from(burst));
            for (pause, cost) in calls {
                now += pause;
                while period < now / 100 {
                    period += 1;
                    left = (left + i64::from(permits)).min(burst.into());
                }
                let at = origin + ms(now);
                prop_assert_eq!(bucket.available(at), left);
                let missing = u64::try_from(i64::from(cost) - left).unwrap_or(0);
                let due = match missing.div_ceil(permits.into()) {
                    0 => now,
                    periods => (period + periods) * 100,
                };
                prop_assert_eq!(bucket.due(cost.into(), at), origin + ms(due));
                bucket.take(cost, at);
                left -= i64::from(cost);
            }
        }

        #[test]
        fn a_warm_up_comes_out_the_same_however_often_one_looks(
            span in 1_u64..200,
            permits in 1_u32..5,
            looks in prop::collection::vec(1_u64..40, 1..40),
        ) {
            let now = start();
            let at = |nanos| now + Duration::from_nanos(nanos);
            let limit = Limit::new(permits, Duration::from_nanos(7)).burst(3).warm_up(Duration::from_nanos(span));
            let mut looked_at = Bucket::new(limit, now);
            looked_at.take(5000, now);
            // Each look is within the span of a use, or it would cool.
            let mut time = 0;
            for look in looks {
                time += look.min(span.div_ceil(2));
                looked_at.take(1, at(time));
                let due = looked_at.due(0, at(time));
                let mut waits = looked_at.clone();
                waits.used = Some(due);
                prop_assert!(waits.debt > waits.limit.credit());
                let mut early = waits.clone();
                early.advance(due - Duration::from_nanos(1));
                prop_assert!(early.debt > early.limit.credit(), "not a nanosecond too late");
                waits.advance(due);
                prop_assert!(waits.debt <= waits.limit.credit(), "and not too early");
            }
        }
    }
}
