//! When a request is sent again, which answer wins, and what becomes of the losers.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::balance::{Balance, Tried};
use buttress::budget::RetryBudget;
use buttress::clock;
use buttress::discovery::Watch;
use buttress::error::{Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::hedge::{CopyRequest, Delay, HedgeLayer, LiveQuantile};
use buttress::layers::retry::RetryLayer;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Deadline, Instance, Outcome};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

type Answer = Result<u16, BoxError>;

/// What an attempt answers, after so many milliseconds.
type Script = fn() -> Vec<(u64, Answer)>;

/// Answers its calls by a script, in order, and remembers when each began and how many were dropped.
#[derive(Clone)]
struct Peer {
    script: Script,
    calls: Arc<Mutex<Vec<u128>>>,
    cancelled: Arc<AtomicU32>,
    start: std::time::Instant,
}

impl Peer {
    fn new(script: Script) -> Self {
        Self {
            script,
            calls: Arc::default(),
            cancelled: Arc::default(),
            start: clock::now(),
        }
    }

    /// The milliseconds at which the calls began.
    fn calls(&self) -> Vec<u128> {
        self.calls.lock().unwrap().clone()
    }

    fn service(
        &self,
    ) -> impl Service<&'static str, Response = u16, Error = BoxError, Future: Send> + Clone + use<>
    {
        let peer = self.clone();
        tower::service_fn(move |_: &'static str| {
            let mut calls = peer.calls.lock().unwrap();
            let (after, answer) = (peer.script)().remove(calls.len());
            calls.push((clock::now() - peer.start).as_millis());
            let running = Running(Some(Arc::clone(&peer.cancelled)));
            async move {
                if after > 0 {
                    clock::sleep(Duration::from_millis(after)).await;
                }
                running.end();
                answer
            }
        })
    }
}

struct Running(Option<Arc<AtomicU32>>);

impl Running {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(cancelled) = &self.0 {
            cancelled.fetch_add(1, Relaxed);
        }
    }
}

fn failure(text: &str) -> Answer {
    Err(text.into())
}

fn refusal() -> Answer {
    Err(Rejected::new("circuit breaker", Reason::Open).into())
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A hedge after 100 ms and no budget, so that a test sees only what it is about.
fn after_100() -> HedgeLayer {
    HedgeLayer::new(ms(100)).budget(None)
}

/// As many tokens as `budget` still has. Takes them.
async fn tokens_left(budget: &RetryBudget) -> u32 {
    let calls = AtomicU32::new(0);
    let service = HedgeLayer::new(ms(1))
        .attempts(1000)
        .budget(budget.without_deposits())
        .layer(tower::service_fn(|()| {
            calls.fetch_add(1, Relaxed);
            async { Err::<(), BoxError>("no".into()) }
        }));
    let _ = service.oneshot(()).await;
    calls.load(Relaxed) - 1
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

// When.

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_sent_again_after_the_delay_and_the_first_answer_wins() {
    // When each attempt ends and how; the answer, when it is there, when the attempts began, how many were dropped.
    let table: [(Script, u16, u128, &[u128], u32); 4] = [
        (|| vec![(90, Ok(1))], 1, 90, &[0], 0),
        (|| vec![(900, Ok(1)), (50, Ok(2))], 2, 150, &[0, 100], 1),
        (|| vec![(140, Ok(1)), (50, Ok(2))], 1, 140, &[0, 100], 1),
        // Both in the same moment.
        (|| vec![(150, Ok(1)), (50, Ok(2))], 1, 150, &[0, 100], 1),
    ];
    for (script, answer, at, calls, cancelled) in table {
        let peer = Peer::new(script);
        let service = after_100().layer(peer.service());
        assert_eq!(service.oneshot("a").await.unwrap(), answer);
        let took = (clock::now() - peer.start).as_millis();
        assert!((at..=at + 2).contains(&took), "{took} and not {at}");
        let began = peer.calls();
        assert_eq!(began.len(), calls.len());
        for (began, due) in began.iter().zip(calls) {
            assert!((*due..=due + 1).contains(began), "{began} and not {due}");
        }
        assert_eq!(peer.cancelled.load(Relaxed), cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn further_attempts_follow_each_other_by_the_delay() {
    let peer = Peer::new(|| (1..=4).map(|n| (10_000, Ok(n))).collect());
    let service = after_100().attempts(4).layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 1);
    let expected = [0, 100, 200, 300];
    for (began, due) in peer.calls().into_iter().zip(expected) {
        assert!(began.abs_diff(due) <= 3, "{began} and not {due}");
    }
    assert_eq!(peer.calls().len(), 4);
    assert_eq!(peer.cancelled.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_fast_is_hedged_at_once() {
    let peer = Peer::new(|| vec![(3, failure("first")), (20, Ok(2))]);
    let service = HedgeLayer::new(ms(60_000)).layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 2);
    assert!(peer.calls()[1] <= 4, "{:?}", peer.calls());
}

#[tokio::test(start_paused = true)]
async fn a_delay_of_zero_sends_all_at_once_and_an_endless_one_after_a_failure_alone() {
    let peer = Peer::new(|| vec![(500, Ok(1)), (500, Ok(2)), (500, Ok(3))]);
    let layer = HedgeLayer::new(Duration::ZERO).attempts(3).budget(None);
    layer.layer(peer.service()).oneshot("a").await.unwrap();
    assert_eq!(peer.calls(), [0, 0, 0]);

    let peer = Peer::new(|| vec![(500, failure("reset")), (500, Ok(2)), (0, Ok(3))]);
    let layer = HedgeLayer::new(Duration::MAX).attempts(3).budget(None);
    let answer = layer.layer(peer.service()).oneshot("a").await;
    assert_eq!(answer.unwrap(), 2);
    assert_eq!(peer.calls(), [0, 500]);
}

#[tokio::test(start_paused = true)]
async fn neither_request_nor_answer_nor_error_has_to_be_clone() {
    struct Plain;
    #[derive(Debug)]
    struct PlainError;
    impl buttress::error::AsRejected for PlainError {
        fn as_rejected(&self) -> Option<&Rejected> {
            None
        }
    }
    let layer = HedgeLayer::new(ms(1)).copy(|_: &Plain, _| Some(Plain));
    let peer = tower::service_fn(|_: Plain| async { Err::<Plain, _>(PlainError) });
    assert!(layer.layer(peer).oneshot(Plain).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_of_one_attempt_is_not_hedged() {
    let peer = Peer::new(|| vec![(500, failure("first"))]);
    let service = after_100().attempts(1).layer(peer.service());
    service.oneshot("a").await.unwrap_err();
    assert_eq!(peer.calls().len(), 1);
}

// Which answer.

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_hedge_does_not_beat_a_live_primary() {
    let peer = Peer::new(|| vec![(500, Ok(1)), (10, failure("second"))]);
    let service = after_100().layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 1);
    assert_eq!(peer.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_primary_does_not_beat_a_live_hedge() {
    let peer = Peer::new(|| vec![(150, failure("first")), (300, Ok(2))]);
    let service = after_100().layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_all_attempts_fail_the_first_one_says_why() {
    let scripts: [Script; 3] = [
        || vec![(10, failure("first")), (10, failure("second"))],
        || vec![(150, failure("first")), (90, failure("second"))],
        || vec![(500, failure("first")), (10, failure("second"))],
    ];
    for script in scripts {
        let service = after_100().layer(Peer::new(script).service());
        let error = service.oneshot("a").await.unwrap_err();
        assert_eq!(error.to_string(), "first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_a_failure_does_not_win_against_a_slower_good_one() {
    let scripts: [Script; 2] = [
        || vec![(500, Ok(200)), (10, Ok(503))],
        || vec![(110, Ok(503)), (400, Ok(200))],
    ];
    for script in scripts {
        let layer = after_100().classify(|result: Result<&u16, &BoxError>| match result {
            Ok(503) | Err(_) => Outcome::Failure,
            Ok(_) => Outcome::Success,
        });
        let service = layer.layer(Peer::new(script).service());
        assert_eq!(service.oneshot("a").await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_says_nothing_about_the_peer_is_an_answer() {
    let peer = Peer::new(|| vec![(500, Ok(200)), (10, Ok(404))]);
    let layer = after_100().classify(|_: Result<&u16, &BoxError>| Outcome::Ignored);
    let service = layer.layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 404);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_to_be_left_alone_is_not_hedged() {
    let peer = Peer::new(|| vec![(10, Ok(503)), (10, Ok(200))]);
    let layer =
        after_100().classify(|_: Result<&u16, &BoxError>| Outcome::Overload(Some(ms(1000))));
    let service = layer.layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 503);
    assert_eq!(peer.calls().len(), 1);
}

// Refusals.

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_primary_is_not_hedged_and_goes_to_the_caller_at_once() {
    let budget = RetryBudget::new(0.0, 1);
    let peer = Peer::new(|| vec![(0, refusal())]);
    let service = after_100().budget(budget.clone()).layer(peer.service());
    let error = service.oneshot("a").await.unwrap_err();
    assert!(Rejected::find(&*error).unwrap().is_open());
    assert_eq!(peer.calls(), [0]);
    assert_eq!(tokens_left(&budget).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_refused_hedge_costs_nothing_and_no_other_follows() {
    let budget = RetryBudget::new(0.0, 1);
    let peer = Peer::new(|| vec![(500, Ok(1)), (0, refusal()), (0, Ok(3))]);
    let layer = after_100().attempts(3).budget(budget.clone());
    let service = layer.layer(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 1);
    assert_eq!(peer.calls().len(), 2);
    assert_eq!(tokens_left(&budget).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_takes_a_permit_of_its_own_inside() {
    let bulkhead = Bulkhead::new("orders", 1);
    let peer = Peer::new(|| vec![(500, Ok(1)), (0, Ok(2))]);
    let service = ServiceBuilder::new()
        .layer(after_100())
        .layer(bulkhead.layer())
        .service(peer.service());
    assert_eq!(service.oneshot("a").await.unwrap(), 1);
    assert_eq!(peer.calls().len(), 1, "the second found the bulkhead full");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_ends_the_hedge_and_not_the_call() {
    let (mock, mut handle) = tower_test::mock::pair::<&str, &str>();
    handle.allow(1);
    let budget = RetryBudget::new(0.0, 1);
    let layer = after_100().budget(budget.clone());
    let mut call = tokio_test::task::spawn(layer.layer(mock).oneshot("ping"));
    assert!(call.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    tokio::time::advance(ms(101)).await;
    handle.send_error("not ready");
    assert!(call.poll().is_pending());
    respond.send_response("pong");
    assert_eq!(call.await.unwrap(), "pong");
    assert_eq!(tokens_left(&budget).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_waits_until_the_service_is_ready_and_is_polled_only_then() {
    let (mock, mut handle) = tower_test::mock::pair::<&str, &str>();
    handle.allow(1);
    let mut call = tokio_test::task::spawn(after_100().layer(mock).oneshot("ping"));
    assert!(call.poll().is_pending());
    let (_, _slow) = handle.next_request().await.unwrap();
    tokio::time::advance(ms(101)).await;
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    assert!(!call.is_woken(), "nothing is polled in vain");
    handle.allow(1);
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response("pong");
    assert_eq!(call.await.unwrap(), "pong");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_given_up_leaves_the_queue_of_the_service_inside() {
    let limited = ServiceBuilder::new()
        .concurrency_limit(2)
        .service(tower::service_fn(|wait: u64| async move {
            clock::sleep(ms(wait)).await;
            Ok::<_, BoxError>(())
        }));
    let other = tokio::spawn(limited.clone().oneshot(200));
    let hedged = after_100().layer(limited.clone()).oneshot(10_000);
    let _slow = tokio::spawn(Deadline::within(ms(150)).scope(hedged));
    other.await.unwrap().unwrap();
    // The hedge has waited for a slot from 100 ms to 150 ms.
    let next = tokio::time::timeout(ms(50), limited.oneshot(1)).await;
    next.expect("the slot is free").unwrap();
}

// The request.

/// Not `Clone`.
struct Order {
    attempt: u32,
    idempotent: bool,
}

#[derive(Clone, Default)]
struct CopyOrders(Arc<AtomicU32>);

impl CopyRequest<Order> for CopyOrders {
    fn copy(&self, order: &Order, attempt: u32) -> Option<Order> {
        self.0.fetch_add(1, Relaxed);
        order.idempotent.then_some(Order {
            attempt,
            idempotent: true,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_is_the_request_itself_and_each_copy_knows_its_number() {
    let copies = CopyOrders::default();
    let seen = Mutex::new(Vec::new());
    let layer = after_100().attempts(3).copy(copies.clone());
    let service = layer.layer(tower::service_fn(|order: Order| {
        seen.lock().unwrap().push(order.attempt);
        async {
            clock::sleep(Duration::from_secs(1)).await;
            Ok::<_, BoxError>(())
        }
    }));
    let order = Order {
        attempt: 0,
        idempotent: true,
    };
    service.oneshot(order).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 2, 3]);
    assert_eq!(copies.0.load(Relaxed), 2, "none for an attempt not allowed");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_an_instance_that_the_call_has_not_tried() {
    let instances = ["a", "b"].map(|id| Instance::new(id, "10.0.0.1", 80));
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let log = Arc::clone(&seen);
    let balance = Balance::new(
        Watch::fixed("orders", instances),
        move |instance: &Arc<Instance>| {
            let (id, log) = (instance.id.clone(), Arc::clone(&log));
            tower::service_fn(move |()| {
                log.lock().unwrap().push(id.clone());
                async {
                    clock::sleep(ms(500)).await;
                    Ok::<_, BoxError>(())
                }
            })
        },
    );
    let send = |tried: Arc<Tried>| balance.send((), Some(&tried));
    let service = after_100().layer(tower::service_fn(send));
    for _ in 0..20 {
        service.clone().oneshot(Arc::default()).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 40);
    assert!(seen.chunks(2).all(|call| call[0] != call[1]));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_copied_is_sent_once() {
    let calls = AtomicU32::new(0);
    let layer = after_100().attempts(3).copy(CopyOrders::default());
    let service = layer.layer(tower::service_fn(|_: Order| {
        calls.fetch_add(1, Relaxed);
        async {
            clock::sleep(Duration::from_secs(1)).await;
            Err::<(), BoxError>("late".into())
        }
    }));
    let order = Order {
        attempt: 0,
        idempotent: false,
    };
    service.oneshot(order).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 1);
}

// The deadline.

#[tokio::test(start_paused = true)]
async fn no_hedge_begins_once_the_deadline_has_passed() {
    let peer = Peer::new(|| vec![(500, Ok(1))]);
    let service = after_100().layer(peer.service());
    let answer = Deadline::within(ms(80)).scope(service.oneshot("a")).await;
    assert_eq!(answer.unwrap(), 1, "to end a call is not this layer's");
    assert_eq!(peer.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_at_the_deadline_with_the_real_error() {
    let (mock, mut handle) = tower_test::mock::pair::<&str, &str>();
    handle.allow(1);
    let call = tokio::spawn(Deadline::within(ms(300)).scope(after_100().layer(mock).oneshot("a")));
    let (_, respond) = handle.next_request().await.unwrap();
    let start = clock::now();
    respond.send_error("reset");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "reset");
    assert!((clock::now() - start).abs_diff(ms(300)) <= ms(1));
}

// The budget.

/// Calls that all outlast the delay, a millisecond apart; the attempts made.
async fn slow_calls(layer: HedgeLayer, calls: u32) -> u32 {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let service = layer.layer(tower::service_fn(move |()| {
        counted.fetch_add(1, Relaxed);
        async {
            clock::sleep(ms(300)).await;
            Ok::<_, BoxError>(())
        }
    }));
    let calls = (0..calls).map(|_| tokio::spawn(service.clone().oneshot(())));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    attempts.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_turns_slow_gets_a_twentieth_more_calls_and_not_as_many_again() {
    let layer = HedgeLayer::new(ms(100)).attempts(5);
    assert_eq!(slow_calls(layer, 1000).await, 1050);
    // The floor: one a second over ten seconds.
    assert_eq!(slow_calls(HedgeLayer::new(ms(100)), 20).await, 30);
    assert_eq!(slow_calls(after_100().attempts(5), 200).await, 600);
}

#[tokio::test(start_paused = true)]
async fn retries_and_hedges_can_share_a_budget_that_counts_each_call_once() {
    let budget = RetryBudget::new(0.5, 0);
    let attempts = AtomicU32::new(0);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(10).budget(budget.clone()))
        .layer(HedgeLayer::new(ms(10)).budget(budget.without_deposits()))
        .service_fn(|()| {
            attempts.fetch_add(1, Relaxed);
            async { Err::<(), BoxError>("no".into()) }
        });
    for _ in 0..20 {
        let _ = service.clone().oneshot(()).await;
    }
    assert_eq!(attempts.load(Relaxed), 30);
}

#[tokio::test(start_paused = true)]
async fn calls_that_a_layer_inside_refused_pay_for_no_hedges() {
    let budget = RetryBudget::new(1.0, 0);
    let layer = after_100().budget(budget.clone());
    let refusing = layer.layer(tower::service_fn(|()| async { refusal() }));
    for _ in 0..3 {
        let _ = refusing.clone().oneshot(()).await;
    }
    assert_eq!(tokens_left(&budget).await, 0);
    // Those that answer do, also where there is no copy to hedge them with.
    let layer = layer.copy(|&(): &(), _: u32| None::<()>);
    let answering = layer.layer(tower::service_fn(|()| async { Ok::<_, BoxError>(1) }));
    for _ in 0..3 {
        answering.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(tokens_left(&budget).await, 3);
}

#[tokio::test(start_paused = true)]
async fn hedges_and_those_that_the_budget_did_not_allow_are_told() {
    let log = Log::default();
    let layer = HedgeLayer::new(ms(10))
        .attempts(9)
        .budget(RetryBudget::new(2.0, 0))
        .name("orders")
        .observe(log.clone());
    slow_calls(layer, 1).await;
    let expected = [
        r#"Hedging { hedge: "orders", attempt: 2 }"#,
        r#"Hedging { hedge: "orders", attempt: 3 }"#,
        r#"BudgetExhausted { retry: "orders" }"#,
    ];
    assert_eq!(*log.0.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_gives_the_answer_is_told_with_its_number_and_no_other_is() {
    // The attempts; the one that wins, unless it is the first.
    let table: [(Script, Option<u32>); 7] = [
        (|| vec![(90, Ok(1))], None),
        (|| vec![(140, Ok(1)), (50, Ok(2))], None),
        (|| vec![(900, Ok(1)), (50, Ok(2))], Some(2)),
        (|| vec![(900, Ok(1)), (900, Ok(2)), (50, Ok(3))], Some(3)),
        // The third is the only hedge that is left once the second has failed.
        (
            || vec![(900, Ok(1)), (50, failure("2")), (50, Ok(3))],
            Some(3),
        ),
        (|| vec![(10, failure("1")), (50, Ok(2))], Some(2)),
        // Where all fail the first attempt's failure is the answer.
        (
            || vec![(10, failure("1")), (10, failure("2")), (10, failure("3"))],
            None,
        ),
    ];
    for (script, expected) in table {
        let log = Log::default();
        let layer = after_100().attempts(3).name("orders").observe(log.clone());
        let _ = layer.layer(Peer::new(script).service()).oneshot("a").await;
        let told = log.0.lock().unwrap();
        let won: Vec<_> = told
            .iter()
            .filter(|it| it.starts_with("HedgeWon"))
            .collect();
        let line = |attempt| format!(r#"HedgeWon {{ hedge: "orders", attempt: {attempt} }}"#);
        let expected = expected.map(line);
        assert_eq!(won, expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_drops_all_its_attempts() {
    let peer = Peer::new(|| (1..=3).map(|n| (10_000, Ok(n))).collect());
    let service = after_100().attempts(3).layer(peer.service());
    let _ = tokio::time::timeout(ms(250), service.oneshot("a")).await;
    assert_eq!(peer.calls().len(), 3);
    assert_eq!(peer.cancelled.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn the_loser_ends_when_the_winner_answers_though_the_future_lives() {
    let peer = Peer::new(|| vec![(900, Ok(1)), (50, Ok(2))]);
    let mut call = pin!(after_100().layer(peer.service()).call("a"));
    assert_eq!(call.as_mut().await.unwrap(), 2);
    assert_eq!(peer.cancelled.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_hedged_allocates_nothing() {
    for layer in [HedgeLayer::new(ms(100)), HedgeLayer::default()] {
        let mut service = layer.layer(tower::service_fn(|n: u8| async move {
            let mut pending = true;
            poll_fn(|_| {
                if mem::take(&mut pending) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
            Ok::<_, BoxError>(n)
        }));
        let allocated = allocation_counter::measure(|| {
            let mut call = pin!(service.call(7));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
            assert!(call.as_mut().poll(&mut cx).is_ready());
        });
        assert_eq!(allocated.count_total, 0);
    }
}

// The live quantile.

/// When the next call of `service` is hedged.
async fn delay_of(layer: &HedgeLayer) -> u128 {
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let service = layer.layer(tower::service_fn(|()| {
        attempts.lock().unwrap().push(clock::now());
        std::future::pending::<Result<u32, BoxError>>()
    }));
    let _ = tokio::time::timeout(Duration::from_secs(100), service.oneshot(())).await;
    let attempts = attempts.lock().unwrap();
    (attempts[1] - attempts[0]).as_millis()
}

async fn calls_of(layer: &HedgeLayer, calls: impl IntoIterator<Item = u32>) {
    let service = layer.layer(tower::service_fn(|ms: u32| async move {
        clock::sleep(Duration::from_millis(ms.into())).await;
        Ok::<_, BoxError>(ms)
    }));
    for ms in calls {
        service.clone().oneshot(ms).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_follows_p95_once_enough_calls_were_measured() {
    let layer = HedgeLayer::default().budget(None);
    calls_of(&layer, 1..=99).await;
    let delay = delay_of(&layer).await;
    assert!((1000..=1002).contains(&delay), "not yet: {delay}");
    // That one was cut off, and counts as slow.
    calls_of(&layer, [100]).await;
    let delay = delay_of(&layer).await;
    assert!((96..=104).contains(&delay), "{delay}");
}

#[tokio::test(start_paused = true)]
async fn the_delay_stays_within_its_bounds() {
    let quantile = || LiveQuantile::new(0.5).minimum_samples(1);
    for (latency, bounds, expected) in [(3, 20..=200, 20), (700, 20..=200, 200)] {
        let bounds = ms(*bounds.start())..=ms(*bounds.end());
        let shown = Delay::from(quantile().bounds(bounds.clone()));
        let layer = HedgeLayer::new(shown.clone()).budget(None);
        assert_eq!(shown.current(), *bounds.end(), "nothing was measured");
        calls_of(&layer, [latency; 3]).await;
        assert_eq!(shown.current().as_millis(), expected);
        let delay = delay_of(&layer).await;
        assert!((expected..=expected + 2).contains(&delay), "{delay}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_does_not_forget_the_slow_calls_that_hedges_cut_short() {
    // Of ten first attempts, one takes a second; its hedge is fast.
    let layer = HedgeLayer::new(LiveQuantile::new(0.95)).budget(None);
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let service = layer.layer(tower::service_fn(move |()| {
        let slow = counted.fetch_add(1, Relaxed) % 10 == 0;
        async move {
            clock::sleep(if slow { ms(900) } else { ms(10) }).await;
            Ok::<_, BoxError>(())
        }
    }));
    for _ in 0..2000 {
        service.clone().oneshot(()).await.unwrap();
    }
    let hedges = calls.load(Relaxed) - 2000;
    assert!(hedges <= 250, "{hedges} hedges");
    assert!(delay_of(&layer).await > 100, "a tenth of the calls is slow");
}

#[tokio::test(start_paused = true)]
async fn failures_and_cancelled_calls_are_not_taken_for_fast_ones() {
    let layer = HedgeLayer::new(LiveQuantile::new(0.5).minimum_samples(1)).budget(None);
    let failing = layer.layer(tower::service_fn(|()| async {
        Err::<(), BoxError>("reset".into())
    }));
    for _ in 0..10 {
        failing.clone().oneshot(()).await.unwrap_err();
    }
    let hanging = layer.layer(tower::service_fn(|()| {
        std::future::pending::<Result<(), BoxError>>()
    }));
    for _ in 0..10 {
        let call = hanging.clone().oneshot(());
        tokio::time::timeout(ms(5), call).await.unwrap_err();
    }
    let delay = delay_of(&layer).await;
    assert!((1000..=1002).contains(&delay), "{delay}");
}

#[test]
fn impossible_settings_panic_and_say_why() {
    let panics = |set: fn()| std::panic::catch_unwind(set).is_err();
    assert!(panics(|| drop(HedgeLayer::default().attempts(0))));
    assert!(panics(|| _ = LiveQuantile::new(1.0)));
    assert!(panics(|| _ = LiveQuantile::new(f64::NAN)));
    assert!(panics(|| _ = LiveQuantile::default().minimum_samples(0)));
    assert!(panics(|| drop(
        LiveQuantile::default().bounds(ms(2)..=ms(1))
    )));
}
