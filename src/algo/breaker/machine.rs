use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::phase::Phase;
use super::settings::{AtLimit, Cancelled, Settings};
use super::{Call, Change, Condition, Figures, Notice, Refusal, State, Ticket};
use crate::algo::Rng;
use crate::algo::window::{Tally, Window};

/// A circuit breaker.
///
/// A call asks with [`acquire`](Self::acquire) and gives its ticket back once, with [`record`](Self::record),
/// [`cancel`](Self::cancel) or [`release`](Self::release). Time that has passed takes effect at the next look: an open
/// breaker turns half-open when a call asks after the wait, and a half-open one past its limit has decided at that
/// limit, whenever it is looked at.
#[derive(Clone, Debug)]
pub struct Breaker {
    pub(super) settings: Settings,
    pub(super) phase: Phase,
    /// How many times it changed, so that a ticket of an earlier state can be told.
    pub(super) epoch: u64,
    pub(super) window: Window,
    pub(super) failures_in_row: u32,
    /// Until when the peer asked not to be called.
    pub(super) asked_until: Option<Instant>,
    /// How many times it opened since it was last closed.
    pub(super) openings: u32,
    pub(super) refused: u64,
    /// The conditions that were told since the state began.
    pub(super) tripped: Vec<Condition>,
    pub(super) notices: VecDeque<Notice>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            phase: Phase::Closed,
            epoch: 0,
            window: settings.window.empty(now),
            settings,
            failures_in_row: 0,
            asked_until: None,
            openings: 0,
            refused: 0,
            tripped: Vec::new(),
            notices: VecDeque::new(),
        }
    }

    /// Asks for one call.
    ///
    /// # Errors
    ///
    /// Why it may not be made now.
    pub fn acquire(&mut self, now: Instant, rng: &mut impl Rng) -> Result<Ticket, Refusal> {
        if let Some(refusal) = self.refuse(now, rng) {
            return Err(refusal);
        }
        if let Phase::Open { .. } = self.phase {
            self.half_open(now);
        }
        if let Phase::HalfOpen { admitted, wait, .. } = &mut self.phase {
            if *admitted == 0 && self.settings.at_limit == AtLimit::ProbeAgain {
                wait.since = now;
            }
            *admitted += 1;
        }
        Ok(Ticket::of(self.epoch))
    }

    /// Why a call would be refused now, without asking for one.
    pub fn refusal(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Refusal> {
        self.expire(now, rng);
        let retry_after = match self.phase {
            Phase::Open { wait, .. } if !wait.is_over(now) => Some(wait.left(now)),
            Phase::HalfOpen { wait, .. } if !self.has_room() => Some(wait.left(now)),
            Phase::ForcedOpen => None,
            _ => return None,
        };
        Some(Refusal {
            state: self.phase.state(),
            retry_after,
        })
    }

    /// As [`refusal`](Self::refusal), for a call that ends with it: it is counted.
    pub fn refuse(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Refusal> {
        let refusal = self.refusal(now, rng);
        self.refused += u64::from(refusal.is_some());
        refusal
    }

    /// Counts a call that ended. Without effect if the state has changed since it was admitted.
    pub fn record(&mut self, ticket: Ticket, call: Call, now: Instant, rng: &mut impl Rng) {
        self.expire(now, rng);
        if ticket.epoch() != self.epoch {
            return;
        }
        let slow = call.elapsed > self.settings.slow_call;
        match &mut self.phase {
            Phase::Closed | Phase::MetricsOnly => self.window.record(now, call.failed, slow),
            Phase::HalfOpen { back, .. } => *back += Tally::one(call.failed, slow),
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => return,
        }
        self.failures_in_row = match call.failed {
            true => self.failures_in_row.saturating_add(1),
            false => 0,
        };
        if let Some(wait) = call.retry_after {
            let until = now.checked_add(wait.min(self.longest_wait()));
            self.asked_until = self.asked_until.max(until);
        }
        let asked = call.retry_after.is_some_and(|wait| !wait.is_zero());
        let asked = asked && self.settings.open_when_asked;
        let opens = call.failed || slow || self.settings.open_on_success;
        if opens || matches!(self.phase, Phase::HalfOpen { .. }) {
            self.judge(asked, now, rng);
        }
    }

    /// Counts a call that was given up after `elapsed`, as the settings have it.
    pub fn cancel(&mut self, ticket: Ticket, elapsed: Duration, now: Instant, rng: &mut impl Rng) {
        let counts = match self.settings.cancelled {
            Cancelled::Failure => true,
            Cancelled::FailureAfter(long) => elapsed >= long,
            Cancelled::Ignored => false,
        };
        if counts {
            self.record(ticket, Call::failed(elapsed), now, rng);
        } else {
            self.release(ticket, now, rng);
        }
    }

    /// Takes a ticket back without counting the call: another may probe in its place.
    pub fn release(&mut self, ticket: Ticket, now: Instant, rng: &mut impl Rng) {
        self.expire(now, rng);
        if ticket.epoch() != self.epoch {
            return;
        }
        if let Phase::HalfOpen { admitted, .. } = &mut self.phase {
            *admitted -= 1;
        }
    }

    /// Whether it is half-open with room for a probe.
    fn has_room(&self) -> bool {
        match self.phase {
            Phase::HalfOpen { admitted, back, .. } => {
                self.taken(admitted, back) < self.settings.half_open_calls
            }
            _ => false,
        }
    }

    /// What it knows at `now`.
    pub fn figures(&mut self, now: Instant, rng: &mut impl Rng) -> Figures {
        self.expire(now, rng);
        let (calls, minimum) = self.counted(now);
        let enough = calls.calls >= minimum;
        Figures {
            state: self.phase.state(),
            calls,
            failure_rate: enough.then(|| calls.failure_rate()),
            slow_rate: enough.then(|| calls.slow_rate()),
            refused: self.refused,
            retry_after: match self.phase {
                Phase::Open { wait, .. } => Some(wait.left(now)),
                _ => None,
            },
        }
    }

    /// Whether a notice waits to be told.
    pub fn has_notice(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The oldest notice that was not told yet.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Lets time take effect though no call asks: an open breaker turns half-open once its wait is over. Returns how
    /// long there is nothing more to do, if it ends by itself.
    pub fn keep_time(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Duration> {
        self.expire(now, rng);
        if matches!(self.phase, Phase::Open { wait, .. } if wait.is_over(now)) {
            self.half_open(now);
        }
        let left = match self.phase {
            Phase::Open { wait, .. } | Phase::HalfOpen { wait, .. } => wait.left(now),
            _ => return None,
        };
        // None where the limit waits for the first probe.
        (!left.is_zero()).then_some(left)
    }

    /// The state as of the last step, and whether it began a wait that is not over.
    pub(crate) fn standing(&self, now: Instant) -> (State, bool) {
        let waits = match self.phase {
            Phase::Open { wait, .. } | Phase::HalfOpen { wait, .. } => !wait.is_over(now),
            _ => false,
        };
        (self.phase.state(), waits)
    }

    /// Every way from one state to another leads through here.
    pub(super) fn enter(&mut self, phase: Phase) {
        let (from, to) = (self.phase.state(), phase.state());
        if from != to {
            self.notices.push_back(Notice::Changed(Change { from, to }));
        }
        self.phase = phase;
        self.epoch += 1;
        self.failures_in_row = 0;
        self.asked_until = None;
        self.refused = 0;
        self.tripped.clear();
    }

    /// Ends a half-open state that has reached its limit, as of that limit.
    pub(super) fn expire(&mut self, now: Instant, rng: &mut impl Rng) {
        let Phase::HalfOpen {
            wait,
            admitted,
            back,
        } = self.phase
        else {
            return;
        };
        if !wait.is_over(now) || self.begins_anew(admitted) {
            return;
        }
        let hung = admitted - back.calls;
        let judged = Tally {
            calls: admitted,
            failures: back.failures + hung,
            ..back
        };
        let told = back.calls > 0 && !self.settings.await_all_probes;
        let well = told && self.verdict(judged, 0) == Some(State::Closed);
        let limit = wait.since + wait.length;
        match self.settings.at_limit {
            _ if well => self.close(),
            AtLimit::Close => self.close(),
            AtLimit::ProbeAgain => self.half_open(limit),
            AtLimit::Judge => self.open(limit, rng),
        }
    }

    /// Whether its limit waits for the first probe.
    fn begins_anew(&self, admitted: u32) -> bool {
        self.settings.at_limit == AtLimit::ProbeAgain && admitted == 0
    }

    pub(super) fn longest_wait(&self) -> Duration {
        self.settings.open_max.max(self.settings.open_wait)
    }

    /// The calls that the present state goes by, and from how many on they make a rate.
    pub(super) fn counted(&mut self, now: Instant) -> (Tally, u32) {
        match self.phase {
            Phase::Closed | Phase::MetricsOnly => (self.window.tally(now), self.minimum()),
            Phase::Open { cause, minimum, .. } => (cause, minimum),
            Phase::HalfOpen { back, .. } => (back, self.wanted_probes()),
            Phase::ForcedOpen | Phase::Disabled => (Tally::default(), u32::MAX),
        }
    }

    /// How many of the probes that a half-open breaker may admit are taken.
    fn taken(&self, admitted: u32, back: Tally) -> u32 {
        match self.settings.replace_probes {
            true => admitted - back.calls,
            false => admitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Draws the same number each time.
    struct Always(f64);

    impl crate::algo::Rng for Always {
        fn next_u64(&mut self) -> u64 {
            unreachable!("only the unit draw is used")
        }

        fn unit(&mut self) -> f64 {
            self.0
        }
    }

    /// A breaker and a clock in milliseconds.
    struct Bench {
        breaker: Breaker,
        start: Instant,
        at: u64,
        rng: Always,
    }

    impl Bench {
        fn new(settings: Settings) -> Self {
            #[allow(clippy::disallowed_methods)]
            let start = Instant::now();
            Self {
                breaker: Breaker::new(settings, start),
                start,
                at: 0,
                rng: Always(0.0),
            }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.at)
        }

        fn acquire(&mut self) -> Result<Ticket, Refusal> {
            self.breaker.acquire(self.now(), &mut self.rng)
        }

        fn end(&mut self, ticket: Ticket, failed: bool) {
            let call = Call {
                failed,
                ..Call::succeeded(Duration::ZERO)
            };
            self.breaker.record(ticket, call, self.now(), &mut self.rng);
        }

        fn call(&mut self, failed: bool) {
            let ticket = self.acquire().expect("admitted");
            self.end(ticket, failed);
        }

        fn figures(&mut self) -> Figures {
            self.breaker.figures(self.now(), &mut self.rng)
        }

        fn state(&mut self) -> State {
            self.figures().state
        }

        fn told(&mut self) -> Vec<Notice> {
            std::iter::from_fn(|| self.breaker.next_notice()).collect()
        }

        fn left(&mut self) -> Duration {
            self.figures().retry_after.expect("open")
        }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Opens on the first failure, for 1 s, with 4 probes.
    fn brittle() -> Settings {
        Settings::default()
            .consecutive_failures(1)
            .open_wait(ms(1000))
            .half_open_calls(4)
    }

    #[test]
    fn half_open_decides_as_soon_as_the_rest_cannot_change_the_verdict() {
        use State::{Closed, HalfOpen, Open};
        // (failed, state after it), with 4 probes and half of them enough to open.
        let cases: [&[(bool, State)]; 5] = [
            &[(true, HalfOpen), (true, Open)],
            &[(true, HalfOpen), (false, HalfOpen), (true, Open)],
            &[(false, HalfOpen), (false, HalfOpen), (false, Closed)],
            &[
                (true, HalfOpen),
                (false, HalfOpen),
                (false, HalfOpen),
                (false, Closed),
            ],
            &[
                (false, HalfOpen),
                (false, HalfOpen),
                (true, HalfOpen),
                (true, Open),
            ],
        ];
        for case in cases {
            let mut bench = Bench::new(brittle());
            bench.breaker.half_open(bench.now());
            for &(failed, state) in case {
                bench.call(failed);
                assert_eq!(bench.state(), state, "{case:?}");
            }
        }
    }

    #[test]
    fn a_breaker_that_awaits_all_probes_does_not_decide_early() {
        let mut bench = Bench::new(brittle().await_all_probes(true));
        bench.breaker.half_open(bench.now());
        for _ in 0..3 {
            bench.call(false);
            assert_eq!(bench.state(), State::HalfOpen);
        }
        bench.call(false);
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn a_breaker_that_awaits_its_probes_hears_no_more_of_them_than_the_minimum_of_calls() {
        for (last, state) in [(false, State::Closed), (true, State::Open)] {
            let settings = brittle().await_all_probes(true).minimum_calls(2);
            let mut bench = Bench::new(settings);
            bench.breaker.half_open(bench.now());
            let _out: Vec<_> = (0..2).map(|_| bench.acquire()).collect();
            bench.call(false);
            assert_eq!(bench.figures().failure_rate, None);
            bench.call(last);
            assert_eq!(bench.state(), state);
        }
    }

    #[test]
    fn with_a_wanted_number_of_successes_half_open_decides_by_that() {
        use State::{Closed, HalfOpen, Open};
        let cases: [&[(bool, State)]; 3] = [
            &[(false, HalfOpen), (false, Closed)],
            &[(true, HalfOpen), (true, HalfOpen), (true, Open)],
            &[
                (true, HalfOpen),
                (false, HalfOpen),
                (true, HalfOpen),
                (false, Closed),
            ],
        ];
        for case in cases {
            let mut bench = Bench::new(brittle().half_open_successes(2));
            bench.breaker.half_open(bench.now());
            for &(failed, state) in case {
                bench.call(failed);
                assert_eq!(bench.state(), state, "{case:?}");
            }
        }
    }

    #[test]
    fn a_half_open_breaker_without_a_limit_on_its_probes_decides() {
        let settings = brittle().half_open_calls(u32::MAX).half_open_successes(2);
        let mut bench = Bench::new(settings);
        bench.breaker.half_open(bench.now());
        bench.call(true);
        bench.call(false);
        assert_eq!(bench.state(), State::HalfOpen);
        bench.call(false);
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn more_successes_than_probes_means_all_of_them() {
        let mut bench = Bench::new(brittle().half_open_successes(9));
        bench.breaker.half_open(bench.now());
        for _ in 0..3 {
            bench.call(false);
            assert_eq!(bench.state(), State::HalfOpen);
        }
        bench.call(false);
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn a_breaker_that_awaits_all_probes_opens_at_the_limit_without_the_last() {
        let mut bench = Bench::new(brittle().await_all_probes(true));
        bench.breaker.half_open(bench.now());
        for _ in 0..3 {
            bench.call(false);
        }
        bench.at = 1000;
        assert_eq!(bench.state(), State::Open);
        let calls = bench.figures().calls;
        assert_eq!(calls.calls, 3, "those that came back");
    }

    #[test]
    fn fewer_probes_than_came_back_already_decide_with_the_next_result() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        let last = bench.acquire().expect("admitted");
        bench.call(false);
        bench.call(true);
        let now = bench.now();
        bench.breaker.reconfigure(brittle().half_open_calls(1), now);
        bench.end(last, false);
        assert_eq!(bench.state(), State::Closed, "one of three failed");
    }

    #[test]
    fn other_settings_keep_the_state_the_calls_and_the_tickets() {
        let mut bench = Bench::new(Settings::default());
        bench.call(true);
        let ticket = bench.acquire().expect("admitted");
        let now = bench.now();
        bench
            .breaker
            .reconfigure(brittle().consecutive_failures(2), now);
        bench.end(ticket, true);
        assert_eq!(bench.left(), ms(1000));

        bench.at = 1000;
        bench.call(false);
        bench.call(true);
        let now = bench.now();
        bench.breaker.reconfigure(brittle().half_open_calls(1), now);
        assert!(bench.acquire().is_err());
        bench.at = 2000;
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn the_wait_ends_at_its_deadline_and_not_before() {
        let mut bench = Bench::new(brittle());
        bench.call(true);
        bench.at = 999;
        let refusal = bench.acquire().expect_err("still open");
        assert_eq!(refusal.retry_after, Some(ms(1)));
        bench.at = 1000;
        assert!(bench.acquire().is_ok());
        assert_eq!(bench.state(), State::HalfOpen);
    }

    #[test]
    fn the_wait_doubles_up_to_its_cap_and_starts_afresh_after_a_close() {
        let mut bench = Bench::new(brittle().open_max(ms(5000)).half_open_calls(1));
        for wait in [1000, 2000, 4000, 5000, 5000] {
            bench.call(true);
            assert_eq!(bench.left(), ms(wait));
            bench.at += wait;
        }
        bench.call(false);
        assert_eq!(bench.state(), State::Closed);
        bench.call(true);
        assert_eq!(bench.left(), ms(1000));
    }

    #[test]
    fn the_thousandth_opening_still_has_the_longest_wait() {
        let mut bench = Bench::new(brittle().half_open_calls(1).open_max(Duration::MAX));
        for _ in 0..2000 {
            bench.breaker.half_open(bench.now());
            bench.call(true);
        }
        assert_eq!(bench.left(), Duration::MAX);
    }

    #[test]
    fn a_function_says_how_long_it_stays_open_within_the_cap() {
        let settings = brittle()
            .consecutive_failures(2)
            .half_open_calls(1)
            .open_wait_by(|opening| ms(100) * opening.number + ms(1) * opening.calls.failures);
        let mut bench = Bench::new(settings.clone());
        for failed in [true, false, true, true] {
            bench.call(failed);
        }
        assert_eq!(bench.left(), ms(103), "three of four failed");
        for openings in 2..5 {
            bench.breaker.half_open(bench.now());
            bench.call(true);
            assert_eq!(bench.left(), ms(100 * openings + 1), "one probe failed");
        }
        bench.breaker.close();
        bench.rng = Always(1.0);
        bench.call(true);
        bench.call(true);
        assert_eq!(
            bench.left(),
            ms(102) / 2,
            "it is the first again, with jitter"
        );

        let mut bench = Bench::new(settings.open_wait_by(|_| Duration::MAX));
        bench.call(true);
        bench.call(true);
        assert_eq!(bench.left(), Duration::from_secs(60));
    }

    #[test]
    fn jitter_shortens_the_wait_and_spreads_it() {
        for (draw, wait) in [(0.0, 1000), (0.5, 750), (1.0, 500)] {
            let mut bench = Bench::new(brittle());
            bench.rng = Always(draw);
            bench.call(true);
            assert_eq!(bench.left(), ms(wait));
        }
    }

    #[test]
    fn an_overloaded_peer_is_left_alone_as_long_as_it_asks_but_not_above_the_cap() {
        for (asked, wait) in [(300, 1000), (7000, 7000), (3_600_000, 60_000)] {
            let mut bench = Bench::new(brittle().consecutive_failures(2));
            let ticket = bench.acquire().expect("admitted");
            let call = Call {
                retry_after: Some(ms(asked)),
                ..Call::failed(ms(1))
            };
            let now = bench.now();
            bench.breaker.record(ticket, call, now, &mut bench.rng);
            bench.call(true);
            assert_eq!(bench.left(), ms(wait));
        }
    }

    #[test]
    fn the_longest_that_the_peer_asked_for_is_kept() {
        let mut bench = Bench::new(brittle().consecutive_failures(2));
        for asked in [9000, 2000] {
            let ticket = bench.acquire().expect("admitted");
            let call = Call {
                retry_after: Some(ms(asked)),
                ..Call::failed(ms(1))
            };
            let now = bench.now();
            bench.breaker.record(ticket, call, now, &mut bench.rng);
        }
        assert_eq!(bench.left(), ms(9000));
    }

    #[test]
    fn what_the_peer_asked_before_a_close_is_forgotten() {
        let mut bench = Bench::new(brittle());
        let ticket = bench.acquire().expect("admitted");
        let call = Call {
            retry_after: Some(ms(9000)),
            ..Call::failed(ms(1))
        };
        let now = bench.now();
        bench.breaker.record(ticket, call, now, &mut bench.rng);
        assert_eq!(bench.left(), ms(9000));
        bench.breaker.close();
        bench.call(true);
        assert_eq!(bench.left(), ms(1000));
    }

    #[test]
    fn a_half_open_breaker_whose_probes_hang_has_opened_again_at_its_limit() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        let hung: Vec<_> = (0..4).map(|_| bench.acquire()).collect();
        assert!(hung.iter().all(Result::is_ok));
        assert_eq!(
            bench.acquire().expect_err("no probe left"),
            Refusal {
                state: State::HalfOpen,
                retry_after: Some(ms(1000)),
            }
        );
        // The wait runs from the limit, also when nobody looked.
        bench.at = 1300;
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.left(), ms(700));
    }

    #[test]
    fn thin_traffic_closes_a_half_open_breaker_at_its_limit() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        bench.call(false);
        bench.at = 1000;
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn a_probe_that_is_still_out_at_the_limit_counts_as_failed() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        bench.call(false);
        let _hung = bench.acquire();
        bench.at = 1000;
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn a_probe_that_is_given_back_after_the_limit_was_out_at_the_limit() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        let hung = bench.acquire().expect("admitted");
        bench.call(false);
        bench.at = 1000;
        let now = bench.now();
        bench.breaker.release(hung, now, &mut bench.rng);
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn half_open_lasts_as_long_as_the_first_wait_unless_told_otherwise() {
        let mut bench = Bench::new(brittle().open_wait(ms(3000)));
        bench.breaker.half_open(bench.now());
        bench.at = 2999;
        assert_eq!(bench.state(), State::HalfOpen);
        bench.at = 3000;
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn two_looks_after_a_long_silence_tell_of_both_changes() {
        let mut bench = Bench::new(brittle());
        bench.breaker.half_open(bench.now());
        bench.at = 60_000;
        assert!(bench.acquire().is_ok());
        let changed = |from, to| Notice::Changed(Change { from, to });
        assert_eq!(
            bench.told(),
            [
                changed(State::Closed, State::HalfOpen),
                changed(State::HalfOpen, State::Open),
                changed(State::Open, State::HalfOpen),
            ]
        );
    }

    #[test]
    fn a_probe_that_came_back_is_replaced_where_the_settings_have_it() {
        for (replace, admitted) in [(false, false), (true, true)] {
            let mut bench = Bench::new(brittle().half_open_calls(2).replace_probes(replace));
            bench.breaker.half_open(bench.now());
            let _hung = bench.acquire();
            bench.call(false);
            assert_eq!(bench.state(), State::HalfOpen);
            assert_eq!(bench.acquire().is_ok(), admitted);
        }
    }

    #[test]
    fn a_half_open_breaker_can_close_at_its_limit_with_no_probe_back() {
        let mut bench = Bench::new(brittle().at_limit(AtLimit::Close));
        bench.breaker.half_open(bench.now());
        let _hung = bench.acquire();
        bench.at = 1000;
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn a_half_open_breaker_can_begin_anew_at_its_limit_and_forgets_the_probes_that_hang() {
        let settings = brittle()
            .half_open_calls(1)
            .half_open_limit(ms(2000))
            .at_limit(AtLimit::ProbeAgain);
        let mut bench = Bench::new(settings);
        bench.breaker.half_open(bench.now());
        bench.at += 5000;
        let hangs = bench.acquire().unwrap();
        bench.at += 1999;
        assert!(
            bench.acquire().is_err(),
            "the limit runs from the first probe"
        );
        bench.at += 1;
        let other = bench.acquire().unwrap();
        bench.end(hangs, false);
        assert_eq!(bench.state(), State::HalfOpen);
        bench.end(other, false);
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn probes_that_came_back_well_close_it_at_a_limit_where_others_would_be_sent() {
        let settings = brittle()
            .half_open_limit(ms(2000))
            .at_limit(AtLimit::ProbeAgain);
        let mut bench = Bench::new(settings);
        bench.breaker.half_open(bench.now());
        let good = bench.acquire().unwrap();
        bench.end(good, false);
        bench.at += 2000;
        assert_eq!(bench.state(), State::Closed);
    }

    #[test]
    fn one_call_that_is_asked_to_stay_away_opens_it_where_the_settings_have_it() {
        for (open_when_asked, asked, state) in [
            (false, ms(9000), State::Closed),
            (true, Duration::ZERO, State::Closed),
            (true, ms(9000), State::Open),
        ] {
            let settings = Settings::default().open_when_asked(open_when_asked);
            let mut bench = Bench::new(settings);
            let ticket = bench.acquire().unwrap();
            let call = Call {
                retry_after: Some(asked),
                ..Call::failed(ms(1))
            };
            let now = bench.now();
            bench.breaker.record(ticket, call, now, &mut bench.rng);
            assert_eq!(bench.state(), state);
            if state == State::Open {
                assert_eq!(bench.left(), asked);
                let tripped = bench.breaker.next_notice();
                assert_eq!(tripped, Some(Notice::Tripped(Condition::Asked)));
            }
        }
    }

    #[test]
    fn a_count_of_failures_can_wait_for_a_number_of_calls() {
        for window in [ms(60_000), ms(0)] {
            let settings = Settings::default().failure_count(2).failure_count_calls(5);
            let settings = match window.is_zero() {
                true => settings.count_window(5),
                false => settings.time_window(window),
            };
            let mut bench = Bench::new(settings);
            for failed in [true, true, false, false] {
                bench.call(failed);
                assert_eq!(bench.state(), State::Closed);
            }
            bench.call(false);
            assert_eq!(bench.state(), State::Open);
        }
    }

    #[test]
    fn steps_by_hand_that_make_no_sense_are_errors_and_change_nothing() {
        use State::{Closed, Disabled, ForcedOpen, HalfOpen, MetricsOnly, Open};
        let all = [Closed, Open, HalfOpen, ForcedOpen, Disabled, MetricsOnly];
        let senseless = [
            (Closed, HalfOpen),
            (MetricsOnly, Open),
            (MetricsOnly, HalfOpen),
        ];
        for from in all {
            for to in all {
                let mut bench = Bench::new(brittle());
                let (now, rng) = (bench.now(), &mut Always(0.0));
                bench.breaker.disable();
                bench.breaker.set(from, now, rng).unwrap();
                let set = bench.breaker.set(to, now, rng);
                let makes_sense = !senseless.contains(&(from, to));
                assert_eq!(set.is_ok(), makes_sense, "{from:?} to {to:?}");
                assert_eq!(bench.state(), if makes_sense { to } else { from });
            }
        }
    }

    #[test]
    fn kept_time_turns_it_half_open_without_a_call_and_says_when_to_look_again() {
        let mut bench = Bench::new(brittle().half_open_limit(ms(3000)));
        let rng = &mut Always(0.0);
        assert_eq!(bench.breaker.keep_time(bench.now(), rng), None);
        bench.breaker.open_for(ms(1000), bench.now());
        bench.at += 400;
        assert_eq!(bench.breaker.keep_time(bench.now(), rng), Some(ms(600)));
        bench.at += 600;
        assert_eq!(bench.breaker.keep_time(bench.now(), rng), Some(ms(3000)));
        assert_eq!(bench.state(), State::HalfOpen);
        bench.at += 3000;
        assert!(bench.breaker.keep_time(bench.now(), rng).is_some());
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn a_success_opens_nothing_where_only_bad_calls_may() {
        let settings = Settings::default().minimum_calls(4).open_on_success(false);
        let mut bench = Bench::new(settings);
        for failed in [true, true, true, false] {
            bench.call(failed);
        }
        assert_eq!(bench.state(), State::Closed);
        assert_eq!(bench.figures().failure_rate, Some(0.75));
        bench.call(true);
        assert_eq!(bench.state(), State::Open);
        bench.breaker.half_open(bench.now());
        for _ in 0..3 {
            bench.call(false);
        }
        assert_eq!(bench.state(), State::Closed, "a success still closes it");
    }

    #[test]
    fn what_opens_it_is_told_before_and_in_a_dry_run_once() {
        use Condition::{ConsecutiveFailures, FailureRate};
        let settings = Settings::default().minimum_calls(3).consecutive_failures(2);
        let mut dry = Bench::new(settings.clone());
        dry.breaker.metrics_only();
        let mut wet = Bench::new(settings.consecutive_failures(3));
        for _ in 0..3 {
            dry.call(true);
            wet.call(true);
        }
        dry.call(true);
        let changed = |from, to| Notice::Changed(Change { from, to });
        assert_eq!(
            dry.told(),
            [
                changed(State::Closed, State::MetricsOnly),
                Notice::Tripped(ConsecutiveFailures),
                Notice::Tripped(FailureRate),
            ]
        );
        assert_eq!(
            wet.told(),
            [
                Notice::Tripped(FailureRate),
                Notice::Tripped(ConsecutiveFailures),
                changed(State::Closed, State::Open),
            ]
        );
    }

    #[test]
    fn a_released_probe_lets_another_in() {
        let mut bench = Bench::new(brittle().half_open_calls(1));
        bench.breaker.half_open(bench.now());
        let probe = bench.acquire().expect("admitted");
        assert!(bench.acquire().is_err());
        let now = bench.now();
        bench.breaker.release(probe, now, &mut bench.rng);
        assert!(bench.acquire().is_ok());
    }

    #[test]
    fn results_of_an_earlier_state_move_nothing() {
        let mut bench = Bench::new(brittle().half_open_calls(1));
        let early: Vec<_> = (0..3).map(|_| bench.acquire().expect("admitted")).collect();
        bench.call(true);
        bench.at = 1000;
        let _probe = bench.acquire().expect("a probe");
        for (ticket, failed) in early.into_iter().zip([false, true, false]) {
            bench.end(ticket, failed);
            assert_eq!(bench.state(), State::HalfOpen);
        }
        assert_eq!(bench.figures().calls, Tally::default());
        assert!(bench.acquire().is_err(), "a late result freed no place");
    }

    #[test]
    fn slow_calls_open_it_and_the_threshold_itself_is_not_slow() {
        for (took, state) in [(100, State::Closed), (101, State::Open)] {
            let settings = Settings::default().count_window(4).slow_calls(ms(100), 1.0);
            let mut bench = Bench::new(settings);
            for _ in 0..4 {
                let ticket = bench.acquire().expect("admitted");
                let now = bench.now();
                let call = Call::succeeded(ms(took));
                bench.breaker.record(ticket, call, now, &mut bench.rng);
            }
            assert_eq!(bench.state(), state);
        }
    }

    #[test]
    fn a_success_that_completes_the_minimum_can_open_it() {
        let mut bench = Bench::new(Settings::default().minimum_calls(4));
        for failed in [true, true, false, false] {
            assert_eq!(bench.state(), State::Closed);
            assert_eq!(bench.figures().failure_rate, None);
            bench.call(failed);
        }
        let figures = bench.figures();
        assert_eq!(figures.state, State::Open);
        assert_eq!(figures.failure_rate, Some(0.5), "of what opened it");
    }

    #[test]
    fn an_open_breaker_shows_the_rate_of_the_probes_that_opened_it() {
        let mut bench = Bench::new(brittle().await_all_probes(true));
        bench.breaker.half_open(bench.now());
        for _ in 0..4 {
            bench.call(true);
        }
        let figures = bench.figures();
        assert_eq!(figures.state, State::Open);
        assert_eq!(figures.failure_rate, Some(1.0));
    }

    #[test]
    fn a_count_of_failures_opens_it_whatever_their_share() {
        let settings = Settings::default().count_window(5).failure_count(3);
        let mut bench = Bench::new(settings);
        // The third failure in five calls; the first one had left the window.
        let calls = [true, false, true, false, false, true, true];
        for failed in calls {
            assert_eq!(bench.state(), State::Closed);
            bench.call(failed);
        }
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn a_window_smaller_than_the_minimum_counts_once_it_is_full() {
        let mut bench = Bench::new(Settings::default().count_window(3));
        bench.call(true);
        bench.call(true);
        assert_eq!(bench.state(), State::Closed);
        bench.call(true);
        assert_eq!(bench.state(), State::Open);
    }

    #[test]
    fn impossible_settings_panic() {
        let settings: [fn() -> Settings; 12] = [
            || Settings::default().failure_rate(0.0),
            || Settings::default().failure_rate(50.0),
            || Settings::default().slow_calls(ms(1), f64::NAN),
            || Settings::default().minimum_calls(0),
            || Settings::default().count_window(0),
            || Settings::default().time_window(Duration::ZERO),
            || Settings::default().consecutive_failures(0),
            || Settings::default().failure_count(0),
            || Settings::default().open_wait(Duration::ZERO),
            || Settings::default().open_multiplier(0.5),
            || Settings::default().open_jitter(1.5),
            || Settings::default().half_open_calls(0),
        ];
        for (i, settings) in settings.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(settings).is_err(), "setting {i}");
        }
    }

    /// What a user of the property test does next.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Acquire,
        /// Ends the n-th of the calls under way: failed or not, slow or not, or none of both for a release.
        End(usize, Option<(bool, bool)>),
        Close,
        ForceOpen,
        Disable,
        MetricsOnly,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..700).prop_map(Step::Wait),
            12 => Just(Step::Acquire),
            10 => (any::<usize>(), prop::option::weighted(0.9, (any::<bool>(), any::<bool>())))
                .prop_map(|(n, end)| Step::End(n, end)),
            1 => prop_oneof![
                6 => Just(Step::Close),
                1 => Just(Step::ForceOpen),
                1 => Just(Step::Disable),
                1 => Just(Step::MetricsOnly),
            ],
        ];
        prop::collection::vec(step, 0..300)
    }

    /// The same breaker told as plainly as can be: a list of what happened in the present state.
    struct Model {
        state: State,
        since: u64,
        wait: u64,
        openings: u32,
        /// Told from calls of earlier states by this.
        visit: u64,
        admitted: usize,
        ended: Vec<(bool, bool)>,
    }

    const SIZE: usize = 6;
    const MINIMUM: usize = 4;
    const IN_ROW: usize = 3;
    const PROBES: usize = 3;
    const LIMIT: u64 = 1500;

    impl Model {
        fn settings() -> Settings {
            Settings::default()
                .count_window(SIZE as u32)
                .minimum_calls(MINIMUM as u32)
                .consecutive_failures(IN_ROW as u32)
                .slow_calls(ms(50), 0.8)
                .open_wait(ms(1000))
                .open_max(ms(4000))
                .half_open_calls(PROBES as u32)
                .half_open_limit(ms(LIMIT))
        }

        fn enter(&mut self, state: State, now: u64) {
            self.state = state;
            self.since = now;
            self.visit += 1;
            self.admitted = 0;
            self.ended.clear();
            match state {
                State::Open => {
                    self.wait = (1000 << self.openings.min(2)).min(4000);
                    self.openings += 1;
                }
                State::Closed => self.openings = 0,
                _ => {}
            }
        }

        fn bad(calls: &[(bool, bool)], of: usize) -> bool {
            let failed = calls.iter().filter(|call| call.0).count();
            let slow = calls.iter().filter(|call| call.1).count();
            failed * 2 >= of || slow * 5 >= of * 4
        }

        fn look(&mut self, now: u64) {
            if self.state != State::HalfOpen || now < self.since + LIMIT {
                return;
            }
            let mut judged = self.ended.clone();
            judged.resize(self.admitted, (true, false));
            let open = self.ended.is_empty() || Self::bad(&judged, judged.len());
            let to = if open { State::Open } else { State::Closed };
            self.enter(to, self.since + LIMIT);
        }

        fn acquire(&mut self, now: u64) -> bool {
            self.look(now);
            if self.state == State::Open && now >= self.since + self.wait {
                self.enter(State::HalfOpen, now);
            }
            let admit = match self.state {
                State::Open | State::ForcedOpen => false,
                State::HalfOpen => self.admitted < PROBES,
                _ => true,
            };
            self.admitted += usize::from(admit);
            admit
        }

        fn end(&mut self, visit: u64, end: Option<(bool, bool)>, now: u64) {
            self.look(now);
            if visit != self.visit || self.state == State::Disabled {
                return;
            }
            let Some(call) = end else {
                self.admitted -= 1;
                return;
            };
            self.ended.push(call);
            let last = |n: usize| &self.ended[self.ended.len().saturating_sub(n)..];
            if self.state == State::Closed {
                let window = last(SIZE);
                let row = last(IN_ROW);
                let in_row = row.len() == IN_ROW && row.iter().all(|call| call.0);
                if in_row || window.len() >= MINIMUM && Self::bad(window, window.len()) {
                    self.enter(State::Open, now);
                }
            } else if self.state == State::HalfOpen {
                let mut worst = self.ended.clone();
                worst.resize(PROBES, (true, true));
                if Self::bad(&self.ended, PROBES) {
                    self.enter(State::Open, now);
                } else if !Self::bad(&worst, PROBES) {
                    self.enter(State::Closed, now);
                }
            }
        }
    }

    #[test]
    fn of_successes_counted_after_the_calm_the_one_that_makes_enough_decides() {
        let (open, closed) = (State::Open, State::Closed);
        let settings = Settings::default().minimum_calls(4).failure_count(3);
        for (successes, open_on_success, in_all, state) in [
            (1, true, 3, closed),
            (2, true, 3, open),
            (5, true, 3, open),
            (5, false, 3, closed),
            (1, true, 2, open),
            (1, false, 2, closed),
        ] {
            let settings = settings.clone().open_on_success(open_on_success);
            let mut bench = Bench::new(settings.clone());
            bench.call(true);
            bench.call(true);
            let (now, rng) = (bench.now(), &mut Always(0.0));
            bench
                .breaker
                .reconfigure(settings.failure_count(in_all), now);
            let calm = bench.breaker.calm_until(now);
            assert_eq!(calm.is_some(), !open_on_success);
            bench.breaker.record_successes(successes, now, rng);
            assert_eq!(bench.state(), state, "{successes}, {open_on_success}");
        }
    }

    proptest! {
        #[test]
        fn successes_counted_late_in_a_calm_change_nothing(
            (rate, slow_rate) in (1_u32..=10, 1_u32..=10),
            minimum in 1_u32..20,
            (in_row, in_all, from) in (1_u32..6, 1_u32..12, 1_u32..20),
            window in (any::<bool>(), 1_u32..30),
            (open_on_success, dry) in any::<(bool, bool)>(),
            steps in prop::collection::vec((0_u64..400, 0_u32..13), 0..300),
        ) {
            let settings = Settings::default()
                .failure_rate(f64::from(rate) / 10.0)
                .slow_calls(Duration::from_millis(10), f64::from(slow_rate) / 10.0)
                .minimum_calls(minimum)
                .consecutive_failures(in_row)
                .failure_count(in_all)
                .failure_count_calls(from)
                .open_on_success(open_on_success);
            let settings = match window {
                (true, calls) => settings.count_window(calls),
                (false, tenths) => settings.time_window(Duration::from_millis(100) * tenths),
            };
            let mut at_once = Bench::new(settings.clone());
            if dry {
                at_once.breaker.metrics_only();
            }
            let mut late = Bench::new(settings.clone());
            late.start = at_once.start;
            late.breaker = at_once.breaker.clone();
            let (mut calm, mut waiting) = (None, 0);
            for (pause, kind) in steps {
                at_once.at += pause / (1 + u64::from(kind % 3) * 10);
                late.at = at_once.at;
                let (now, rng) = (late.now(), &mut Always(0.0));
                if kind == 12 {
                    let settings = settings.clone().failure_count(1 + (pause % 12) as u32);
                    at_once.breaker.reconfigure(settings.clone(), now);
                    late.breaker.record_successes(waiting, now, rng);
                    late.breaker.reconfigure(settings, now);
                    (calm, waiting) = (late.breaker.calm_until(now), 0);
                    continue;
                }
                let call = Call {
                    failed: kind == 0,
                    ..Call::succeeded(Duration::from_millis(if kind == 1 { 11 } else { 10 }))
                };
                let ticket = at_once.acquire();
                if let Ok(ticket) = ticket {
                    at_once.breaker.record(ticket, call, now, rng);
                }
                if kind > 1 && calm.is_some_and(|until| now < until) {
                    waiting += 1;
                    continue;
                }
                late.breaker.record_successes(waiting, now, rng);
                waiting = 0;
                if let Ok(ticket) = late.acquire() {
                    late.breaker.record(ticket, call, now, rng);
                }
                calm = late.breaker.calm_until(now);
                prop_assert_eq!(late.figures(), at_once.figures());
                prop_assert_eq!(late.breaker.epoch, at_once.breaker.epoch);
                prop_assert_eq!(late.told(), at_once.told());
            }
        }

        #[test]
        fn it_does_what_the_plain_model_does(steps in steps()) {
            let mut bench = Bench::new(Model::settings());
            let mut model = Model {
                state: State::Closed,
                since: 0,
                wait: 0,
                openings: 0,
                visit: 0,
                admitted: 0,
                ended: Vec::new(),
            };
            let mut under_way: Vec<(Ticket, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(millis) => bench.at += millis,
                    Step::Acquire => {
                        let ticket = bench.acquire();
                        prop_assert_eq!(ticket.is_ok(), model.acquire(bench.at));
                        under_way.extend(ticket.ok().map(|ticket| (ticket, model.visit)));
                    }
                    Step::End(n, end) => {
                        if under_way.is_empty() {
                            continue;
                        }
                        let (ticket, visit) = under_way.swap_remove(n % under_way.len());
                        model.end(visit, end, bench.at);
                        let now = bench.now();
                        match end {
                            Some((failed, slow)) => {
                                let elapsed = ms(if slow { 51 } else { 50 });
                                let call = Call { failed, elapsed, retry_after: None };
                                bench.breaker.record(ticket, call, now, &mut bench.rng);
                            }
                            None => bench.breaker.release(ticket, now, &mut bench.rng),
                        }
                    }
                    Step::Close => {
                        model.enter(State::Closed, bench.at);
                        bench.breaker.close();
                    }
                    Step::ForceOpen => {
                        model.enter(State::ForcedOpen, bench.at);
                        bench.breaker.force_open();
                    }
                    Step::Disable => {
                        model.enter(State::Disabled, bench.at);
                        bench.breaker.disable();
                    }
                    Step::MetricsOnly => {
                        model.enter(State::MetricsOnly, bench.at);
                        bench.breaker.metrics_only();
                    }
                }
                // Not looked at after each step: what time brings must come out the same.
                if bench.at % 2 == 0 {
                    continue;
                }
                model.look(bench.at);
                prop_assert_eq!(bench.state(), model.state);
                if model.state == State::Open {
                    let left = (model.since + model.wait).saturating_sub(bench.at);
                    prop_assert_eq!(bench.left(), ms(left));
                }
            }
        }
    }
}
