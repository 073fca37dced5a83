//! Families of circuit breakers, in paused time.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use buttress::algo::breaker::{Settings, State};
use buttress::error::{BoxError, Reason, Rejected};
use buttress::layers::circuit_breaker::CircuitBreakers;
use buttress::observe::{Event, Observe};
use buttress::{Outcome, clock};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A call to a host, which fails or hangs.
#[derive(Clone, Copy)]
struct To(&'static str, Peer);

#[derive(Clone, Copy)]
enum Peer {
    Works,
    Fails,
    Hangs,
}

/// Opens on the first failure, for 1 s.
fn brittle() -> Settings {
    Settings::default()
        .consecutive_failures(1)
        .open_wait(SECOND)
        .open_jitter(0.0)
        .half_open_calls(1)
}

fn hosts(most: usize) -> CircuitBreakers<&'static str> {
    CircuitBreakers::new("hosts", brittle(), most)
}

fn users(most: usize) -> CircuitBreakers<u32> {
    CircuitBreakers::new("users", brittle(), most)
}

fn service(
    breakers: &CircuitBreakers<&'static str>,
) -> impl Service<To, Response = (), Error = BoxError> + Clone + use<> {
    let peer = service_fn(|To(_, peer)| async move {
        match peer {
            Peer::Works => Ok(()),
            Peer::Fails => Err(BoxError::from("connection reset")),
            Peer::Hangs => std::future::pending().await,
        }
    });
    breakers.layer(|request: &To| request.0).layer(peer)
}

fn succeed(breakers: &CircuitBreakers<u32>, key: u32) {
    breakers
        .try_acquire(key)
        .expect("closed")
        .record(Outcome::Success);
}

fn fail(breakers: &CircuitBreakers<u32>, key: u32) {
    breakers
        .try_acquire(key)
        .expect("closed")
        .record(Outcome::Failure);
}

fn state(breakers: &CircuitBreakers<u32>, key: u32) -> Option<State> {
    breakers.find(&key).map(|breaker| breaker.state())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

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
async fn one_key_that_fails_closes_no_other() {
    let breakers = hosts(100);
    let service = service(&breakers);
    let call = |to| service.clone().oneshot(to);
    call(To("b", Peer::Works)).await.unwrap();
    call(To("a", Peer::Fails)).await.unwrap_err();
    let error = call(To("a", Peer::Works)).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.reason(), Reason::Open);
    assert_eq!(rejected.name(), Some("hosts/a"));
    assert_eq!(rejected.wait_hint(), Some(SECOND));
    call(To("b", Peer::Works)).await.unwrap();

    clock::sleep(SECOND).await;
    call(To("a", Peer::Works)).await.unwrap();
    assert_eq!(breakers.find(&"a").unwrap().state(), State::Closed);
    assert_eq!(breakers.keys(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_made_for_its_first_call_and_shared_by_all_layers_and_clones() {
    let breakers = hosts(100);
    let (one, other) = (service(&breakers), service(&breakers.clone()));
    assert!(breakers.find(&"a").is_none());
    one.oneshot(To("a", Peer::Fails)).await.unwrap_err();
    let error = other.oneshot(To("a", Peer::Works)).await.unwrap_err();
    assert!(Rejected::find(&*error).unwrap().is_open());
}

#[tokio::test(start_paused = true)]
async fn each_breaker_can_be_read_listed_and_steered_by_its_key() {
    let log = Log::default();
    let breakers = users(100).observe(log.clone());
    succeed(&breakers, 1);
    breakers.breaker(2).force_open();
    fail(&breakers, 3);

    let mut all = Vec::new();
    breakers.each(|key, breaker| all.push((*key, breaker.name().to_owned(), breaker.state())));
    all.sort_by_key(|it| it.0);
    let row = |key, state| (key, format!("users/{key}"), state);
    let wanted = [
        row(1, State::Closed),
        row(2, State::ForcedOpen),
        row(3, State::Open),
    ];
    assert_eq!(all, wanted);

    breakers.find(&3).unwrap().close();
    succeed(&breakers, 3);
    assert!(breakers.try_acquire(2).is_err());
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            "users/2: Closed > ForcedOpen",
            "users/3: Closed > Open",
            "users/3: Open > Closed",
            "circuit breaker `users/2` was forced open",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn other_settings_reach_the_breakers_that_are_there_and_those_to_come() {
    let breakers = users(100);
    succeed(&breakers, 1);
    breakers.reconfigure(brittle().consecutive_failures(2));
    for key in [1, 2] {
        fail(&breakers, key);
        assert_eq!(state(&breakers, key), Some(State::Closed));
        fail(&breakers, key);
        assert_eq!(state(&breakers, key), Some(State::Open));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_may_have_settings_of_its_own() {
    let breakers = CircuitBreakers::new_by(
        "users",
        |key: &u32| brittle().consecutive_failures(*key),
        100,
    );
    let failures_until_open = |key| {
        let failures = (1..).find(|_| {
            fail(&breakers, key);
            state(&breakers, key) == Some(State::Open)
        });
        breakers.breaker(key).close();
        failures.unwrap()
    };
    assert_eq!([1, 2, 5].map(failures_until_open), [1, 2, 5]);
    breakers.reconfigure_by(|key| brittle().consecutive_failures(*key + 1));
    assert_eq!([1, 2, 5, 6].map(failures_until_open), [2, 3, 6, 7]);
    breakers.reconfigure(brittle());
    assert_eq!([1, 2, 7].map(failures_until_open), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_says_the_settings_is_asked_once_for_each_breaker_and_may_ask_the_family() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let breakers = users(100);
    let (list, family) = (Arc::clone(&asked), breakers.clone());
    breakers.reconfigure_by(move |key| {
        list.lock().unwrap().push(*key);
        assert!(family.keys() < 100);
        assert!(family.find(key).is_none());
        brittle()
    });
    for key in [1, 2, 1, 2] {
        succeed(&breakers, key);
    }
    assert_eq!(*asked.lock().unwrap(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_and_those_in_use_are_not() {
    let breakers = users(10_000).idle_after(60 * SECOND);
    for key in 0..10_000 {
        succeed(&breakers, u32::MAX);
        succeed(&breakers, key);
        clock::sleep(SECOND).await;
        assert!(breakers.keys() < 1200, "{} after {key}", breakers.keys());
    }
    assert!(breakers.find(&u32::MAX).is_some());
    let mut all = 0;
    breakers.each(|_, _| all += 1);
    assert_eq!(all, 60);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_idle_only_once_its_wait_is_over_and_is_told_closed() {
    let log = Log::default();
    let breakers = users(100).idle_after(60 * SECOND).observe(log.clone());
    fail(&breakers, 1);
    fail(&breakers, 2);
    breakers.breaker(2).open_for(3600 * SECOND);
    clock::sleep(60 * SECOND).await;
    breakers.each(|key, _| assert_eq!(*key, 2));
    assert_eq!(breakers.keys(), 1);
    clock::sleep(3600 * SECOND).await;
    breakers.each(|_, _| unreachable!("all are idle"));
    let closed = ["users/1: Open > Closed", "users/2: Open > Closed"];
    assert_eq!(log.0.lock().unwrap()[2..], closed);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_is_bounded_and_forgets_no_open_breaker() {
    for most in [2, 7, 1000] {
        let breakers = users(most);
        fail(&breakers, u32::MAX);
        let still = Settings::default().open_wait(86_400 * SECOND);
        breakers.find(&u32::MAX).unwrap().reconfigure(still);
        breakers.find(&u32::MAX).unwrap().open();
        for key in 0..5000 {
            succeed(&breakers, key);
            assert!(breakers.keys() <= most);
        }
        assert_eq!(state(&breakers, u32::MAX), Some(State::Open));
    }
}

#[tokio::test(start_paused = true)]
async fn of_closed_breakers_the_one_unused_for_longest_goes_first() {
    let breakers = users(8);
    for key in 0..8 {
        succeed(&breakers, key);
        clock::sleep(SECOND).await;
    }
    succeed(&breakers, 0);
    succeed(&breakers, 100);
    assert!(breakers.find(&1).is_none());
    assert!(
        [0, 2, 3, 4, 5, 6, 7, 100]
            .iter()
            .all(|key| breakers.find(key).is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn where_every_breaker_is_open_the_bound_holds_all_the_same() {
    let breakers = users(8);
    for key in 0..100 {
        fail(&breakers, key);
        assert!(breakers.keys() <= 8);
        clock::sleep(SECOND / 100).await;
    }
    assert_eq!(state(&breakers, 99), Some(State::Open));
    assert!(breakers.find(&0).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_steered_or_holds_stays_though_there_are_too_many() {
    let breakers = users(2);
    breakers.breaker(0).force_open();
    breakers.breaker(1).disable();
    breakers.breaker(2).metrics_only();
    let held = breakers.breaker(3);
    let under_way = breakers.try_acquire(4).unwrap();
    for key in 100..200 {
        succeed(&breakers, key);
        clock::sleep(3600 * SECOND).await;
    }
    assert!(breakers.keys() <= 6);
    assert_eq!(state(&breakers, 0), Some(State::ForcedOpen));
    assert_eq!(state(&breakers, 1), Some(State::Disabled));
    assert_eq!(state(&breakers, 2), Some(State::MetricsOnly));
    under_way.record(Outcome::Failure);
    assert_eq!(state(&breakers, 4), Some(State::Open));
    held.open();
    assert_eq!(state(&breakers, 3), Some(State::Open));
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_and_panics_count_for_their_key() {
    let breakers = hosts(100);
    let service = service(&breakers);
    let mut hangs = task::spawn(service.clone().oneshot(To("a", Peer::Hangs)));
    assert_pending!(hangs.poll());
    drop(hangs);
    assert_eq!(breakers.find(&"a").unwrap().state(), State::Open);

    let panics = service_fn(|_: To| async { panic!("the peer's client has a bug") });
    let panics = breakers.layer(|request: &To| request.0).layer(panics);
    let panics: tokio::task::JoinHandle<Result<(), BoxError>> =
        tokio::spawn(panics.oneshot(To("b", Peer::Works)));
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(breakers.find(&"b").unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_the_classifiers_business() {
    let breakers = hosts(100);
    let status = service_fn(|To(host, _)| async move {
        Ok::<u16, BoxError>(if host == "a" { 500 } else { 404 })
    });
    let layer =
        breakers
            .layer(|request: &To| request.0)
            .classify(|result: Result<&u16, &BoxError>| match result {
                Ok(500..) | Err(_) => Outcome::Failure,
                Ok(_) => Outcome::Success,
            });
    for host in ["a", "b"] {
        layer
            .layer(status)
            .oneshot(To(host, Peer::Works))
            .await
            .unwrap();
    }
    assert_eq!(breakers.find(&"a").unwrap().state(), State::Open);
    assert_eq!(breakers.find(&"b").unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_the_service_inside_alone() {
    let breakers = users(100);
    let (mut service, mut handle) =
        tower_test::mock::spawn_layer::<u32, (), _>(breakers.layer(|key: &u32| *key));
    breakers.breaker(7).force_open();
    handle.allow(1);
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
    let refused: Result<(), BoxError> = service.call(7).await;
    assert!(Rejected::find(&*refused.unwrap_err()).unwrap().is_open());
    assert_pending!(task::spawn(handle.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn listeners_hear_of_what_time_does_to_each_breaker_though_nobody_calls() {
    let log = Log::default();
    let settings = |key: &u32| {
        let wait = Duration::from_millis(u64::from(*key));
        brittle().open_wait(wait).open_max(wait)
    };
    let breakers = CircuitBreakers::new_by("users", settings, 100).observe(log.clone());
    let heard = || std::mem::take(&mut *log.0.lock().unwrap());
    succeed(&breakers, 1);
    let (all, began) = (breakers.clone(), clock::now());
    let kept = tokio::spawn(async move { all.keep_time().await });
    let at = |millis: u64| clock::sleep_until((began + Duration::from_millis(millis)).into());
    at(100).await;

    // Made when time is kept already; the longer wait first.
    for key in [900, 500] {
        fail(&breakers, key);
    }
    assert_eq!(heard().len(), 2);
    at(599).await;
    assert_eq!(heard(), [""; 0]);
    at(602).await;
    assert_eq!(heard(), ["users/500: Open > HalfOpen"]);
    // A wait that becomes shorter without a change of state.
    breakers.find(&900).unwrap().open_for(SECOND / 10);
    at(699).await;
    assert_eq!(heard(), [""; 0]);
    at(704).await;
    assert_eq!(heard(), ["users/900: Open > HalfOpen"]);
    // A half-open one that decides at its limit: its probe hangs.
    let probe = breakers.try_acquire(500).unwrap();
    at(1099).await;
    assert_eq!(heard(), [""; 0]);
    at(1215).await;
    assert_eq!(heard(), ["users/500: HalfOpen > Open"]);
    drop(probe);
    kept.abort();
}

#[tokio::test(start_paused = true)]
async fn where_time_is_kept_a_breaker_that_nobody_calls_is_forgotten_though_nobody_looks() {
    let log = Log::default();
    let breakers = users(100).idle_after(60 * SECOND).observe(log.clone());
    let all = breakers.clone();
    let kept = tokio::spawn(async move { all.keep_time().await });
    fail(&breakers, 7);
    breakers.breaker(8).open_for(3600 * SECOND);
    clock::sleep(180 * SECOND).await;
    assert_eq!(breakers.keys(), 1);
    let heard = log.0.lock().unwrap().clone();
    assert!(heard.contains(&"users/7: Open > HalfOpen".to_owned()));
    let last = heard.last().unwrap();
    assert!(
        last.starts_with("users/7:") && last.ends_with("> Closed"),
        "{last}"
    );
    clock::sleep(3600 * SECOND).await;
    assert_eq!(breakers.keys(), 0);
    kept.abort();
}

#[test]
#[should_panic(expected = "a family of no keys has no breaker")]
fn a_family_of_no_keys_panics() {
    let _ = users(0);
}

const SECOND: Duration = Duration::from_secs(1);
