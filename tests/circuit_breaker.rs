//! The circuit breaker layer, in paused time.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::Poll;
use std::time::Duration;

use buttress::algo::breaker::{AtLimit, Breaker, Call, Cancelled, Change, Notice, Settings, State};
use buttress::classify::ErrorsFail;
use buttress::error::{BoxError, Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::circuit_breaker::{CircuitBreaker, CircuitBreakerService};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::rng::ThreadRng;
use buttress::{Deadline, Outcome, clock};
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::util::{BoxCloneService, Oneshot};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// What the peer does with a request. Not `Clone`, as requests are.
#[derive(Debug)]
enum Ask {
    Answer,
    AnswerIn(Duration),
    /// Takes so long without waiting for anything.
    Work(Duration),
    Fail,
    Panic,
    Hang,
}

type Peer = BoxCloneService<Ask, (), BoxError>;

fn peer() -> Peer {
    BoxCloneService::new(tower::service_fn(|ask| async move {
        match ask {
            Ask::Answer => Ok(()),
            Ask::AnswerIn(time) => {
                clock::sleep(time).await;
                Ok(())
            }
            Ask::Work(time) => {
                // It moves the clock at once.
                let mut work = task::spawn(tokio::time::advance(time));
                assert_pending!(work.poll());
                Ok(())
            }
            Ask::Fail => Err("connection reset".into()),
            Ask::Panic => panic!("the peer's client has a bug"),
            Ask::Hang => pending().await,
        }
    }))
}

/// Opens on the second failure in a row, for 1 s at first; two probes, and both must succeed.
fn brittle() -> Settings {
    Settings::default()
        .consecutive_failures(2)
        .open_wait(SECOND)
        .open_jitter(0.0)
        .half_open_calls(2)
}

fn breaker(settings: Settings) -> (CircuitBreaker, CircuitBreakerService<Peer, ErrorsFail>) {
    let breaker = CircuitBreaker::new("orders", settings);
    let service = breaker.layer().layer(peer());
    (breaker, service)
}

fn call<S>(service: &S, ask: Ask) -> Oneshot<S, Ask>
where
    S: Service<Ask, Response = (), Error = BoxError> + Clone,
{
    service.clone().oneshot(ask)
}

fn refusal(result: Result<(), BoxError>) -> Rejected {
    let error = result.expect_err("a refusal");
    Rejected::find(&*error).expect("a refusal").clone()
}

/// Starts a call and gives it up `after` it was made.
async fn give_up<S>(service: &S, after: Duration)
where
    S: Service<Ask, Response = (), Error = BoxError> + Clone,
{
    let call = call(service, Ask::Hang);
    assert!(tokio::time::timeout(after, call).await.is_err());
}

/// Keeps what it is told, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Refused(rejected) => rejected.to_string(),
            Event::StateChanged { breaker, from, to } => format!("{breaker}: {from:?} > {to:?}"),
            _ => return,
        };
        self.0.lock().expect("no panic").push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_after_ten_thousand_successes_opens_a_window_of_a_hundred() {
    let (breaker, service) = breaker(Settings::default().count_window(100));
    for _ in 0..10_000 {
        call(&service, Ask::Answer).await.unwrap();
    }
    for _ in 0..49 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Closed);
    call(&service, Ask::Fail).await.unwrap_err();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_idle_breaker_forgets() {
    let (breaker, service) = breaker(Settings::default());
    for _ in 0..19 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    clock::sleep(10 * SECOND).await;
    assert_eq!(breaker.figures().calls.calls, 0);
    call(&service, Ask::Fail).await.unwrap_err();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn probes_further_apart_than_the_window_close_it() {
    let settings = brittle().time_window(SECOND).half_open_limit(60 * SECOND);
    let (breaker, service) = breaker(settings);
    breaker.half_open();
    call(&service, Ask::Answer).await.unwrap();
    clock::sleep(30 * SECOND).await;
    call(&service, Ask::Answer).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_good_probe_within_the_limit_closes_it_when_no_other_call_comes() {
    let (breaker, service) = breaker(brittle());
    breaker.half_open();
    call(&service, Ask::Answer).await.unwrap();
    assert_eq!(breaker.state(), State::HalfOpen);
    clock::sleep(SECOND).await;
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_behind_a_timeout_outside_opens_it() {
    let (breaker, service) = breaker(brittle());
    let service = TimeoutLayer::new(SECOND).layer(service);
    for _ in 0..2 {
        assert!(refusal(call(&service, Ask::Hang).await).is_timeout());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_that_hang_and_are_given_up_do_not_leave_it_closed() {
    let (breaker, service) = breaker(Settings::default());
    let mut refused = 0;
    for _ in 0..1000 {
        let call = call(&service, Ask::Hang);
        let ended = tokio::time::timeout(SECOND / 1000, call).await;
        refused += u32::from(ended.is_ok());
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(refused, 980);
}

#[tokio::test(start_paused = true)]
async fn cancelled_probes_open_it_again() {
    let (breaker, service) = breaker(brittle());
    breaker.half_open();
    give_up(&service, SECOND / 10).await;
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_can_be_made_to_count_only_once_it_lasted_long() {
    let (breaker, service) = breaker(brittle().cancelled(Cancelled::FailureAfter(SECOND)));
    give_up(&service, SECOND / 2).await;
    assert_eq!(breaker.figures().calls.calls, 0);
    give_up(&service, SECOND).await;
    assert_eq!(breaker.figures().calls.failures, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ignored_cancellation_gives_the_probes_place_back() {
    let (breaker, service) = breaker(brittle().cancelled(Cancelled::Ignored));
    breaker.half_open();
    for _ in 0..10 {
        give_up(&service, SECOND / 100).await;
    }
    assert_eq!(breaker.figures().calls.calls, 0);
    let hanging: Vec<_> = (0..2).map(|_| breaker.try_acquire().unwrap()).collect();
    assert!(breaker.try_acquire().is_err(), "ten came back, none twice");
    drop(hanging);
    clock::sleep(SECOND).await;
    assert_eq!(breaker.state(), State::Open, "no probe told that it works");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_returns_holds_half_open_no_longer_than_its_limit() {
    let (breaker, service) = breaker(brittle());
    breaker.half_open();
    let mut hung = task::spawn(call(&service, Ask::Hang));
    assert_pending!(hung.poll());
    clock::sleep(SECOND).await;
    assert_eq!(breaker.state(), State::Open);
    clock::sleep(SECOND).await;
    for _ in 0..2 {
        call(&service, Ask::Answer).await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_does_not_close_a_half_open_breaker() {
    let (breaker, service) = breaker(brittle().half_open_calls(1));
    let mut early = task::spawn(call(&service, Ask::AnswerIn(3 * SECOND / 2)));
    assert_pending!(early.poll());
    for _ in 0..2 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    clock::sleep(SECOND).await;
    let probe = breaker.try_acquire().unwrap();
    clock::sleep(SECOND / 2).await;
    assert_ready_ok!(early.poll());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.try_acquire().is_err(), "the probe keeps its place");
    probe.record(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_opens_neither_a_half_open_nor_a_closed_breaker() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let [one, two, three, four] = [(); 4].map(|()| breaker.try_acquire().unwrap());
    breaker.half_open();
    one.record(Outcome::Failure);
    two.record(Outcome::Failure);
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.close();
    three.record(Outcome::Failure);
    four.record(Outcome::Failure);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.figures().calls.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn errors_of_readiness_count() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let mut broken = breaker.layer().layer(Broken);
    for _ in 0..2 {
        let error = broken.ready().await.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "no connection");
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.figures().refused, 0, "no call was refused");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_does_not_ask_whether_the_service_inside_is_ready() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let mut broken = breaker.layer().layer(Broken);
    breaker.open();
    let refused = broken.ready().await.unwrap().call(Ask::Answer).await;
    assert!(refusal(refused).is_open());
    assert_eq!(breaker.figures().refused, 1);
    // The next one that is let through finds out.
    clock::sleep(SECOND).await;
    assert!(broken.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn panics_of_readiness_count() {
    struct Panics;
    impl Service<Ask> for Panics {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Pending<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
            panic!("the peer's client has a bug")
        }

        fn call(&mut self, _: Ask) -> Self::Future {
            unreachable!("never ready")
        }
    }

    let breaker = CircuitBreaker::new("orders", brittle().cancelled(Cancelled::Ignored));
    for _ in 0..2 {
        let mut service = breaker.layer().layer(Panics);
        let asked = tokio::spawn(async move { service.ready().await.map(|_| ()) });
        assert!(asked.await.unwrap_err().is_panic());
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.figures().refused, 0, "no call was refused");
}

#[tokio::test(start_paused = true)]
async fn panics_count_even_where_cancelled_calls_do_not() {
    let (breaker, service) = breaker(brittle().cancelled(Cancelled::Ignored));
    for _ in 0..2 {
        let call = tokio::spawn(call(&service, Ask::Panic));
        assert!(call.await.unwrap_err().is_panic());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_call_itself_counts() {
    let breaker = CircuitBreaker::new("orders", brittle().cancelled(Cancelled::Ignored));
    let panics = tower::service_fn(|(): ()| -> std::future::Ready<Result<(), BoxError>> {
        panic!("before there is a future")
    });
    let mut service = breaker.layer().layer(panics);
    for _ in 0..2 {
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| drop(service.call(()))));
        assert!(called.is_err());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn ten_ready_clones_hold_no_probe_between_them() {
    let (breaker, mut service) = breaker(brittle());
    breaker.half_open();
    let mut idle: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut idle {
        clone.ready().await.unwrap();
    }
    for _ in 0..2 {
        service
            .ready()
            .await
            .unwrap()
            .call(Ask::Answer)
            .await
            .unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn half_open_admits_its_probes_and_no_more() {
    let (breaker, service) = breaker(brittle());
    for _ in 0..2 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    clock::sleep(SECOND).await;
    let mut calls: Vec<_> = (0..50)
        .map(|_| task::spawn(call(&service, Ask::Hang)))
        .collect();
    let admitted = calls
        .iter_mut()
        .filter_map(|call| match call.poll() {
            Poll::Pending => Some(()),
            Poll::Ready(result) => {
                assert_eq!(refusal(result).reason(), Reason::HalfOpen);
                None
            }
        })
        .count();
    assert_eq!(admitted, 2);
    assert_eq!(breaker.figures().refused, 48);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_by_a_close_and_by_nothing_before() {
    let (breaker, _) = breaker(brittle());
    breaker.force_open();
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    clock::sleep(3600 * SECOND).await;
    assert!(!waiting.is_woken());
    breaker.close();
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_when_the_wait_is_over_and_when_a_probe_is_given_back() {
    let (breaker, _) = breaker(brittle().half_open_calls(1));
    breaker.open_for(3 * SECOND);
    let begun = clock::now();
    breaker.ready().await;
    assert_eq!(clock::now() - begun, 3 * SECOND);

    let probe = breaker.try_acquire().unwrap();
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    probe.release();
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll());

    breaker.reconfigure(brittle().half_open_calls(1).cancelled(Cancelled::Ignored));
    let probe = breaker.try_acquire().unwrap();
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    drop(probe);
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_when_a_probe_comes_back_that_is_replaced() {
    let (breaker, _) = breaker(brittle().replace_probes(true));
    breaker.half_open();
    let (_hung, probe) = (
        breaker.try_acquire().unwrap(),
        breaker.try_acquire().unwrap(),
    );
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    probe.record(Outcome::Success);
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_earlier_when_the_wait_is_cut_short() {
    let (breaker, _) = breaker(brittle());
    breaker.open_for(3600 * SECOND);
    let begun = clock::now();
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    breaker.open_for(SECOND);
    waiting.await;
    assert_eq!(clock::now() - begun, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_whose_time_is_kept_changes_at_its_moment_though_nobody_calls() {
    let log = Log::default();
    let breaker = CircuitBreaker::new("orders", brittle().half_open_limit(3 * SECOND));
    let breaker = breaker.observe(log.clone());
    let mut kept = task::spawn(breaker.keep_time());
    assert_pending!(kept.poll());
    clock::sleep(3600 * SECOND).await;
    assert!(!kept.is_woken(), "nothing is polled in vain");

    breaker.open_for(SECOND);
    assert!(kept.is_woken());
    assert_pending!(kept.poll());
    clock::sleep(SECOND).await;
    assert!(kept.is_woken());
    assert_pending!(kept.poll());
    clock::sleep(3 * SECOND).await;
    assert!(kept.is_woken());
    assert_pending!(kept.poll());
    assert_eq!(
        log.lines(),
        [
            "orders: Closed > Open",
            "orders: Open > HalfOpen",
            "orders: HalfOpen > Open"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_a_value_is_set_unless_the_step_makes_no_sense() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let error = breaker.set(State::HalfOpen).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no circuit breaker goes from Closed to HalfOpen"
    );
    breaker.set(State::ForcedOpen).unwrap();
    let mut waiting = task::spawn(breaker.ready());
    assert_pending!(waiting.poll());
    breaker.set(State::HalfOpen).unwrap();
    assert!(waiting.is_woken());
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn one_overloaded_answer_opens_it_where_the_settings_have_it() {
    let breaker = CircuitBreaker::new("orders", Settings::default().open_when_asked(true));
    let layer = breaker
        .layer()
        .classify(|_: Result<&(), &BoxError>| Outcome::Overload(Some(9 * SECOND)));
    call(&layer.layer(peer()), Ask::Answer).await.unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.figures().retry_after, Some(9 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn who_opens_a_breaker_by_hand_need_not_say_for_how_long() {
    let (breaker, _) = breaker(brittle().open_wait(3 * SECOND));
    for wait in [3, 6, 12] {
        breaker.open();
        assert_eq!(breaker.figures().retry_after, Some(wait * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_read_and_steer_the_breaker_and_hears_every_change_in_order() {
    #[derive(Clone, Default)]
    struct Meddler {
        breaker: Arc<OnceLock<CircuitBreaker>>,
        log: Log,
    }
    impl Observe for Meddler {
        fn on_event(&self, event: &Event<'_>) {
            let breaker = self.breaker.get().unwrap();
            if breaker.state() == State::Open {
                breaker.force_open();
            }
            self.log.on_event(event);
        }
    }

    let meddler = Meddler::default();
    let breaker = CircuitBreaker::new("orders", brittle()).observe(meddler.clone());
    meddler.breaker.set(breaker.clone()).unwrap();
    breaker.open_for(SECOND);
    assert_eq!(
        meddler.log.lines(),
        ["orders: Closed > Open", "orders: Open > ForcedOpen"]
    );
}

#[test]
fn a_slow_listener_stops_no_call() {
    struct Slow(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);
    impl Observe for Slow {
        fn on_event(&self, _: &Event<'_>) {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
        }
    }

    let (heard, hears) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let breaker =
        CircuitBreaker::new("orders", brittle()).observe(Slow(heard, Mutex::new(goes_on)));
    std::thread::scope(|scope| {
        scope.spawn(|| breaker.disable());
        hears.recv().unwrap();
        for _ in 0..100 {
            breaker.try_acquire().unwrap().record(Outcome::Success);
        }
        breaker.close();
        go_on.send(()).unwrap();
        hears
            .recv()
            .expect("the second change comes after the first");
        go_on.send(()).unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_ends_nothing_and_is_told_of_the_next_change() {
    struct Panics(Log);
    impl Observe for Panics {
        fn on_event(&self, event: &Event<'_>) {
            self.0.on_event(event);
            assert!(self.0.lines().len() > 1, "the first event is too much");
        }
    }

    let log = Log::default();
    let breaker = CircuitBreaker::new("orders", brittle()).observe(Panics(log.clone()));
    breaker.disable();
    breaker.close();
    assert_eq!(
        log.lines(),
        ["orders: Closed > Disabled", "orders: Disabled > Closed"]
    );
}

#[test]
fn a_listener_that_is_replaced_may_read_the_breaker_as_it_goes() {
    struct ReadsAsItGoes(CircuitBreaker, mpsc::Sender<State>);
    impl Observe for ReadsAsItGoes {
        fn on_event(&self, _: &Event<'_>) {}
    }
    impl Drop for ReadsAsItGoes {
        fn drop(&mut self) {
            self.1.send(self.0.state()).unwrap();
        }
    }

    let (reads, read) = mpsc::channel();
    let breaker = CircuitBreaker::new("orders", brittle());
    let breaker = breaker
        .clone()
        .observe(ReadsAsItGoes(breaker.clone(), reads));
    // On a thread of its own: a deadlock shall fail, not hang.
    std::thread::spawn(move || breaker.observe(Log::default()));
    assert_eq!(read.recv_timeout(10 * SECOND), Ok(State::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_who_refused_and_when_to_come_back() {
    let log = Log::default();
    let breaker = CircuitBreaker::new("orders", brittle()).observe(log.clone());
    let service = breaker.layer().layer(peer());
    for _ in 0..2 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    clock::sleep(SECOND / 4).await;
    let rejected = refusal(call(&service, Ask::Answer).await);
    assert_eq!(rejected.reason(), Reason::Open);
    assert_eq!(rejected.name(), Some("orders"));
    assert_eq!(rejected.wait_hint(), Some(3 * SECOND / 4));
    assert_eq!(
        log.lines(),
        [
            "orders: Closed > Open",
            "circuit breaker `orders` is open; retry after 750ms"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_probe_in_step() {
    buttress::rng::seed(7);
    let mut waits: Vec<_> = (0..20)
        .map(|_| {
            let breaker =
                CircuitBreaker::new("orders", Settings::default().consecutive_failures(1));
            breaker.try_acquire().unwrap().record(Outcome::Failure);
            breaker.figures().retry_after.unwrap()
        })
        .collect();
    waits.sort();
    waits.dedup();
    assert_eq!(waits.len(), 20);
    assert!(waits[0] < 3 * SECOND && waits[19] > 4 * SECOND, "{waits:?}");
    assert!(waits[0] >= 5 * SECOND / 2 && waits[19] <= 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn each_opening_without_a_close_waits_longer() {
    let (breaker, service) = breaker(brittle().half_open_calls(1).consecutive_failures(1));
    for wait in [1, 2, 4] {
        call(&service, Ask::Fail).await.unwrap_err();
        assert_eq!(breaker.figures().retry_after, Some(wait * SECOND));
        clock::sleep(wait * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_peer_is_left_alone_as_long_as_it_asks() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let service = breaker
        .layer()
        .classify(|result: Result<&(), &BoxError>| match result {
            Ok(()) => Outcome::Success,
            Err(_) => Outcome::Overload(Some(9 * SECOND)),
        })
        .layer(peer());
    for _ in 0..2 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    assert_eq!(breaker.figures().retry_after, Some(9 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it() {
    let settings = Settings::default()
        .minimum_calls(2)
        .slow_calls(SECOND, 0.5)
        .open_wait(SECOND);
    let (breaker, service) = breaker(settings);
    call(&service, Ask::AnswerIn(SECOND)).await.unwrap();
    assert_eq!(breaker.figures().calls.slow, 0);
    let slow = SECOND + Duration::from_millis(1);
    call(&service, Ask::AnswerIn(slow)).await.unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.figures().slow_rate, Some(0.5));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_keeps_its_thread_busy_is_slow_though_nobody_waited_for_it() {
    let settings = Settings::default().slow_calls(SECOND, 1.0);
    let (breaker, service) = breaker(settings);
    assert_ready_ok!(task::spawn(call(&service, Ask::Work(SECOND))).poll());
    assert_eq!(breaker.figures().calls.slow, 0);
    assert_ready_ok!(task::spawn(call(&service, Ask::Work(2 * SECOND))).poll());
    assert_eq!(breaker.figures().calls.slow, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_as_slow_for_a_breaker_that_times_calls_whatever_one_inside_does() {
    let outer = CircuitBreaker::new("outer", Settings::default().slow_calls(SECOND, 1.0));
    let inner = CircuitBreaker::new("inner", Settings::default());
    let inside = inner.layer().layer(peer());
    // Nobody waits.
    let service = outer.layer().layer(inside.clone());
    assert_ready_ok!(task::spawn(call(&service, Ask::Work(2 * SECOND))).poll());
    assert_eq!(outer.figures().calls.slow, 1);
    // Somebody waits, but not for the call inside.
    let waits = tower::service_fn(|ask| {
        let answer = inside.clone().call(ask);
        async {
            clock::sleep(2 * SECOND).await;
            answer.await
        }
    });
    let mut service = outer.layer().layer(waits);
    service.call(Ask::Answer).await.unwrap();
    assert_eq!(outer.figures().calls.slow, 2);
}

#[tokio::test(start_paused = true)]
async fn successes_whose_futures_are_polled_late_are_in_the_window() {
    let (breaker, mut service) = breaker(Settings::default().time_window(10 * SECOND));
    let calls: Vec<_> = (0..100).map(|_| service.call(Ask::Answer)).collect();
    clock::sleep(11 * SECOND).await;
    for call in calls {
        call.await.unwrap();
    }
    for _ in 0..20 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    // One may be taken to have ended as it began.
    assert!(breaker.figures().calls.calls >= 119);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn calls_that_outlive_their_breaker_count_in_no_other() {
    let (gone, service) = breaker(brittle());
    let asks = [Ask::Fail, Ask::Fail, Ask::Hang];
    let calls = asks.map(|ask| task::spawn(service.clone().call(ask)));
    let under_way = [gone.try_acquire().unwrap(), gone.try_acquire().unwrap()];
    let log = Log::default();
    let gone = gone.observe(log.clone());
    drop((gone, service));
    let (next, _service) = breaker(brittle());
    for mut call in calls {
        drop(call.poll());
    }
    for permit in under_way {
        permit.record(Outcome::Failure);
    }
    assert_eq!(next.figures().calls.calls, 0);
    assert_eq!(next.state(), State::Closed);
    assert!(log.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_listener_goes_with_the_last_handle_whatever_is_under_way() {
    let heard = Arc::new(());
    struct Listens(#[allow(dead_code)] Arc<()>);
    impl Observe for Listens {
        fn on_event(&self, _: &Event<'_>) {}
    }
    let breaker = CircuitBreaker::new("orders", brittle()).observe(Listens(Arc::clone(&heard)));
    let permit = breaker.try_acquire().unwrap();
    drop(breaker);
    assert_eq!(Arc::strong_count(&heard), 1);
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_inside_is_not_counted_and_keeps_no_probe() {
    let outer = CircuitBreaker::new("outer", brittle().half_open_calls(1));
    let inner = CircuitBreaker::new("inner", brittle());
    let service = ServiceBuilder::new()
        .layer(outer.layer())
        .layer(inner.layer())
        .service(peer());
    inner.force_open();
    outer.half_open();
    for _ in 0..5 {
        let rejected = refusal(call(&service, Ask::Answer).await);
        assert_eq!(rejected.name(), Some("inner"));
    }
    assert_eq!(outer.state(), State::HalfOpen);
    assert_eq!(outer.figures().calls.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_before_the_peer_was_asked_is_not_counted() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let bulkhead = Bulkhead::new("orders", 1).queue(1, 60 * SECOND);
    let service = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(bulkhead.layer())
        .layer(TimeoutLayer::new(60 * SECOND))
        .service(peer());
    let passed = Deadline::within(Duration::ZERO);
    let rejected = refusal(passed.scope(call(&service, Ask::Answer)).await);
    assert_eq!(rejected.layer(), "timeout");
    let _held = bulkhead.acquire().await.unwrap();
    let soon = Deadline::within(SECOND);
    let rejected = refusal(soon.scope(call(&service, Ask::Answer)).await);
    assert_eq!(rejected.layer(), "bulkhead");
    assert_eq!(rejected.reason(), Reason::DeadlineExceeded);
    assert_eq!(breaker.figures().calls.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn forced_open_refuses_until_it_is_closed() {
    let (breaker, service) = breaker(brittle());
    breaker.force_open();
    clock::sleep(3600 * SECOND).await;
    let rejected = refusal(call(&service, Ask::Answer).await);
    assert_eq!(rejected.reason(), Reason::ForcedOpen);
    assert_eq!(rejected.wait_hint(), None);
    assert_eq!(breaker.figures().refused, 1);
    breaker.close();
    assert_eq!(
        breaker.figures().refused,
        0,
        "it counts in the present state"
    );
    call(&service, Ask::Answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn disabled_counts_nothing_and_metrics_only_counts_without_opening() {
    let (breaker, service) = breaker(brittle().minimum_calls(5));
    breaker.disable();
    for _ in 0..10 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Disabled);
    assert_eq!(breaker.figures().calls.calls, 0);

    breaker.metrics_only();
    for _ in 0..10 {
        call(&service, Ask::Fail).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::MetricsOnly);
    assert_eq!(breaker.figures().calls.failures, 10);
    assert_eq!(breaker.figures().failure_rate, Some(1.0));

    breaker.close();
    assert_eq!(breaker.figures().calls.calls, 0);

    call(&service, Ask::Fail).await.unwrap_err();
    breaker.metrics_only();
    assert_eq!(breaker.figures().calls.calls, 0, "a dry run starts empty");
}

#[tokio::test(start_paused = true)]
async fn other_settings_take_effect_while_calls_are_under_way() {
    let (breaker, service) = breaker(Settings::default());
    call(&service, Ask::Fail).await.unwrap_err();
    let mut under_way = task::spawn(call(&service, Ask::AnswerIn(SECOND)));
    assert_pending!(under_way.poll());
    breaker.reconfigure(Settings::default().minimum_calls(2));
    clock::sleep(SECOND).await;
    assert_ready_ok!(under_way.poll());
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn layers_of_one_breaker_share_its_state() {
    let (breaker, one) = breaker(brittle());
    let other = breaker.clone().layer().layer(peer());
    call(&one, Ask::Fail).await.unwrap_err();
    call(&other, Ask::Fail).await.unwrap_err();
    assert!(refusal(call(&one, Ask::Answer).await).is_open());
    assert!(refusal(call(&other, Ask::Answer).await).is_open());
}

#[tokio::test(start_paused = true)]
async fn a_closed_breaker_is_ready_when_the_service_inside_is() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let (mut service, mut handle) = tower_test::mock::spawn_layer::<(), (), _>(breaker.layer());
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    let ((), answer) = handle.next_request().await.unwrap();
    answer.send_response(());
    assert_ready_ok!(response.poll());
    assert_eq!(breaker.figures().calls.calls, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_without_a_ready_service_inside() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let (mut service, mut handle) = tower_test::mock::spawn_layer::<(), (), _>(breaker.layer());
    handle.allow(0);
    breaker.open_for(SECOND);
    assert_ready_ok!(service.poll_ready());
    let refused: BoxError = assert_ready_err!(task::spawn(service.call(())).poll());
    assert!(Rejected::find(&*refused).unwrap().is_open());

    // Told ready while it refused, called when it would not: what is not ready must not be called.
    assert_ready_ok!(service.poll_ready());
    clock::sleep(SECOND).await;
    let refused: BoxError = assert_ready_err!(task::spawn(service.call(())).poll());
    let refused = Rejected::find(&*refused).unwrap();
    assert_eq!(refused.wait_hint(), Some(Duration::ZERO));
    assert_eq!(breaker.state(), State::Open, "no probe was sent");
    assert_pending!(service.poll_ready());

    // Told ready while it refused, but the service inside has become ready since.
    breaker.open_for(SECOND);
    assert_ready_ok!(service.poll_ready());
    breaker.close();
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    let ((), answer) = handle.next_request().await.unwrap();
    answer.send_response(());
    assert_ready_ok!(response.poll());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_the_service_inside_is_woken_when_the_breaker_opens() {
    let breaker = CircuitBreaker::new("orders", brittle().cancelled(Cancelled::Ignored));
    let (mut service, mut handle) = tower_test::mock::spawn_layer::<(), (), _>(breaker.layer());
    handle.allow(0);
    assert_pending!(service.poll_ready());
    breaker.try_acquire().unwrap().release();
    drop(breaker.try_acquire().unwrap());
    assert!(!service.is_woken(), "nothing is polled in vain");
    breaker.try_acquire().unwrap().record(Outcome::Failure);
    assert!(!service.is_woken());
    breaker.try_acquire().unwrap().record(Outcome::Failure);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_the_service_inside_is_woken_when_the_last_probe_is_taken() {
    let breaker = CircuitBreaker::new("orders", brittle());
    let (mut service, mut handle) = tower_test::mock::spawn_layer::<(), (), _>(breaker.layer());
    handle.allow(0);
    breaker.half_open();
    assert_pending!(service.poll_ready());
    let _first = breaker.try_acquire().unwrap();
    assert!(!service.is_woken());
    let _last = breaker.try_acquire().unwrap();
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_permit_taken_by_hand_counts_like_a_call() {
    let breaker = CircuitBreaker::new("orders", brittle().slow_calls(SECOND, 1.0));
    breaker.try_acquire().unwrap().record(Outcome::Success);
    breaker.try_acquire().unwrap().release();
    let slow = breaker.try_acquire().unwrap();
    clock::sleep(2 * SECOND).await;
    drop(slow);
    let calls = breaker.figures().calls;
    assert_eq!((calls.calls, calls.failures, calls.slow), (2, 1, 1));
}

/// Keeps what a breaker tells of itself, as its core does.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Notice>>>);

impl Observe for Told {
    fn on_event(&self, event: &Event<'_>) {
        let notice = match *event {
            Event::Tripped { condition, .. } => Notice::Tripped(condition),
            Event::StateChanged { from, to, .. } => Notice::Changed(Change { from, to }),
            _ => return,
        };
        self.0.lock().expect("no panic").push(notice);
    }
}

proptest! {
    #[test]
    fn it_decides_as_its_core_does_that_is_asked_for_each_call(
        (minimum, in_row, in_all) in (1_u32..12, 2_u32..8, 2_u32..12),
        (by_calls, window) in (any::<bool>(), 1_u32..30),
        (open_on_success, replace, dry) in any::<(bool, bool, bool)>(),
        at_limit in prop::sample::select(vec![AtLimit::Judge, AtLimit::Close, AtLimit::ProbeAgain]),
        from in 1_u32..12,
        steps in prop::collection::vec((0_u64..300, 0_u32..24), 1..200),
    ) {
        let settings = Settings::default()
            .minimum_calls(minimum)
            .consecutive_failures(in_row)
            .failure_count(in_all)
            .failure_count_calls(from)
            .slow_calls(Duration::from_millis(100), 0.5)
            .open_on_success(open_on_success)
            .replace_probes(replace)
            .at_limit(at_limit)
            .open_wait(SECOND)
            .open_jitter(0.0);
        let settings = match by_calls {
            true => settings.count_window(window),
            false => settings.time_window(Duration::from_millis(100) * window),
        };
        let paused = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        paused.block_on(async {
            let told = Told::default();
            let breaker = CircuitBreaker::new("orders", settings.clone()).observe(told.clone());
            let (mut core, rng) = (Breaker::new(settings.clone(), clock::now()), &mut ThreadRng);
            if dry {
                breaker.metrics_only();
                core.metrics_only();
            }
            for (wait, kind) in steps {
                tokio::time::advance(Duration::from_millis(wait / 8)).await;
                if kind == 20 {
                    let settings = settings.clone().failure_count(1 + (wait % 12) as u32);
                    breaker.reconfigure(settings.clone());
                    core.reconfigure(settings, clock::now());
                    continue;
                }
                let (permit, ticket) = (breaker.try_acquire(), core.acquire(clock::now(), rng));
                prop_assert_eq!(permit.is_ok(), ticket.is_ok());
                let (Ok(permit), Ok(ticket)) = (permit, ticket) else {
                    continue;
                };
                let elapsed = Duration::from_millis(if kind == 21 { 101 } else { wait % 8 });
                tokio::time::advance(elapsed).await;
                let (outcome, call) = match kind {
                    0..4 => (Outcome::Failure, Call::failed(elapsed)),
                    _ => (Outcome::Success, Call::succeeded(elapsed)),
                };
                permit.record(outcome);
                core.record(ticket, call, clock::now(), rng);
                // Not after each call: a look is a step too.
                if kind == 22 {
                    prop_assert_eq!(breaker.figures(), core.figures(clock::now(), rng));
                }
            }
            prop_assert_eq!(breaker.figures(), core.figures(clock::now(), rng));
            let notices: Vec<_> = std::iter::from_fn(|| core.next_notice()).collect();
            prop_assert_eq!(&*told.0.lock().unwrap(), &notices);
            Ok(())
        })?;
    }
}

/// A service whose readiness fails.
#[derive(Clone)]
struct Broken;

impl Service<Ask> for Broken {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Pending<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("no connection".into()))
    }

    fn call(&mut self, _: Ask) -> Self::Future {
        unreachable!("never ready")
    }
}

const SECOND: Duration = Duration::from_secs(1);
