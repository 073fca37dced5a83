//! What is tried again, when, with which request, and which answer the caller gets.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::algo::backoff::{Backoff, Jitter};
use buttress::budget::RetryBudget;
use buttress::clock;
use buttress::error::{Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::retry::{Decision, RetryLayer, Rules};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, GiveUp, Observe};
use buttress::{BoxError, Deadline, Outcome};
use futures_util::FutureExt;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Answer = Result<u16, BoxError>;

/// What readiness is after so many calls.
type Readiness = fn(u32) -> Poll<Result<(), BoxError>>;

/// Answers with a function of the number of the call, 1 for the first. It panics if called before it is ready.
#[derive(Default)]
struct Peer<F> {
    answer: F,
    calls: Arc<AtomicU32>,
    readiness: Option<Readiness>,
    ready: bool,
}

impl<F: Clone> Clone for Peer<F> {
    fn clone(&self) -> Self {
        Self {
            answer: self.answer.clone(),
            calls: Arc::clone(&self.calls),
            readiness: self.readiness,
            ready: false,
        }
    }
}

impl<F, Req> Service<Req> for Peer<F>
where
    F: Fn(u32, Req) -> Answer,
{
    type Response = u16;
    type Error = BoxError;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let polled = match self.readiness {
            Some(readiness) => readiness(self.calls.load(Relaxed)),
            None => Poll::Ready(Ok(())),
        };
        self.ready = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(self.ready, "called before it was ready");
        self.ready = false;
        let call = self.calls.fetch_add(1, Relaxed) + 1;
        ready((self.answer)(call, request))
    }
}

fn peer<F>(answer: F) -> Peer<F> {
    Peer {
        answer,
        calls: Arc::default(),
        readiness: None,
        ready: false,
    }
}

/// Fails until call number `good`, saying which call it was.
fn good_from(good: u32) -> Peer<impl Fn(u32, ()) -> Answer + Clone> {
    peer(move |call, ()| match call {
        call if call < good => failure(call),
        call => Ok(call as u16),
    })
}

fn failure(call: u32) -> Answer {
    Err(format!("failure {call}").into())
}

fn open() -> BoxError {
    Rejected::new("circuit breaker", Reason::Open).into()
}

/// As a layer: waits of exactly 100 ms and no budget, so that a test sees only what it is about.
fn three_attempts() -> RetryLayer {
    RetryLayer::new(3).backoff(exactly(100)).budget(None)
}

fn exactly(ms: u64) -> Backoff {
    Backoff::constant(Duration::from_millis(ms)).jitter(Jitter::None)
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_tried_again_until_it_succeeds_or_its_attempts_are_used_up() {
    for (good, expected) in [(1, "1"), (3, "3"), (4, "failure 3")] {
        let said = three_attempts().layer(good_from(good)).oneshot(()).await;
        let said = said.map_or_else(|e| e.to_string(), |ok| ok.to_string());
        assert_eq!(said, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_waits_are_those_of_the_backoff() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let start = clock::now();
    let seen = Arc::clone(&times);
    let peer = peer(move |call, ()| {
        seen.lock()
            .unwrap()
            .push((clock::now() - start).as_millis());
        failure(call)
    });
    let backoff = Backoff::exponential(Duration::from_millis(100), 2.0)
        .cap(Duration::from_millis(300))
        .jitter(Jitter::None);
    let layer = RetryLayer::new(5).backoff(backoff);
    layer.layer(peer).oneshot(()).await.unwrap_err();
    assert_eq!(*times.lock().unwrap(), [0, 100, 300, 600, 900]);
}

#[tokio::test(start_paused = true)]
async fn the_waits_have_jitter_unless_told_otherwise_and_a_cap_of_10_s_gives_no_15_s() {
    let mut waits = Vec::new();
    for _ in 0..100 {
        let start = clock::now();
        let layer = RetryLayer::new(9).budget(None);
        layer.layer(good_from(2)).oneshot(()).await.unwrap();
        waits.push((clock::now() - start).as_millis());
        layer.layer(good_from(9)).oneshot(()).await.unwrap();
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 20, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 101), "{waits:?}");

    struct Capped(Arc<AtomicU32>);
    impl Observe for Capped {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Retrying { wait, .. } = event {
                assert!(*wait <= Duration::from_secs(10), "{wait:?}");
                self.0.fetch_add(1, Relaxed);
            }
        }
    }
    let retries = Arc::new(AtomicU32::new(0));
    let backoff = Backoff::exponential(Duration::from_secs(9), 2.0);
    let layer = RetryLayer::new(99).backoff(backoff).budget(None);
    let layer = layer.observe(Capped(Arc::clone(&retries)));
    layer.layer(good_from(99)).oneshot(()).await.unwrap();
    assert_eq!(retries.load(Relaxed), 98);
}

#[tokio::test(start_paused = true)]
async fn a_response_can_be_tried_again_and_the_last_one_is_the_answer() {
    let statuses = |call, ()| -> Answer { Ok([503, 502, 404, 200][call as usize - 1]) };
    let peer = peer(statuses);
    let layer = three_attempts()
        .rules(|_: &(), result: Result<&u16, &BoxError>| matches!(result, Ok(502..=504)));
    assert_eq!(layer.layer(peer.clone()).oneshot(()).await.unwrap(), 404);

    let layer = RetryLayer::new(2)
        .rules(|_: &(), result: Result<&u16, &BoxError>| matches!(result, Ok(502..=504)));
    peer.calls.store(0, Relaxed);
    assert_eq!(layer.layer(peer).oneshot(()).await.unwrap(), 502);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_the_rules_do_not_name_is_final() {
    let peer = good_from(9);
    let calls = Arc::clone(&peer.calls);
    let layer = three_attempts().rules(|_: &(), result: Result<&u16, &BoxError>| {
        result.is_err_and(|error| error.to_string() == "failure 1")
    });
    let error = layer.layer(peer).oneshot(()).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 2");
    assert_eq!(calls.load(Relaxed), 2);
}

// The request.

/// Not `Clone`. Knows how many copies were made of it and for which attempts.
struct Order {
    copies: Arc<Mutex<Vec<u32>>>,
    original: bool,
}

#[derive(Clone)]
struct CopyOrders;

impl Rules<Order, u16, BoxError> for CopyOrders {
    fn replay(&self, order: &Order, attempt: u32) -> Option<Order> {
        assert!(order.original, "a copy of a copy");
        order.copies.lock().unwrap().push(attempt);
        Some(Order {
            copies: Arc::clone(&order.copies),
            original: false,
        })
    }

    fn decide(&self, order: &Order, result: Result<&u16, &BoxError>) -> Decision {
        assert!(order.original);
        result.is_err().into()
    }
}

#[tokio::test(start_paused = true)]
async fn the_original_is_sent_last_and_no_copy_is_made_for_that() {
    // Attempts allowed, the call that succeeds, the copies made, whether the last call got the original.
    let table: [(u32, u32, &[u32], bool); 5] = [
        (1, 1, &[], true),
        (1, 9, &[], true),
        (3, 1, &[1], false),
        (3, 2, &[1, 2], false),
        (3, 9, &[1, 2], true),
    ];
    for (attempts, good, expected, last) in table {
        let copies: Arc<Mutex<Vec<u32>>> = Arc::default();
        let original = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&original);
        let peer = peer(move |call, order: Order| {
            seen.store(u32::from(order.original), Relaxed);
            if call < good { failure(call) } else { Ok(200) }
        });
        let service = RetryLayer::new(attempts).rules(CopyOrders).layer(peer);
        let order = Order {
            copies: Arc::clone(&copies),
            original: true,
        };
        let _ = service.oneshot(order).await;
        assert_eq!(*copies.lock().unwrap(), expected);
        assert_eq!(original.load(Relaxed) == 1, last, "{attempts} {good}");
    }
}

/// Not `Clone`, nor is its answer, nor its error.
struct Plain(u32);

#[derive(Debug)]
struct PlainError;

impl From<Rejected> for PlainError {
    fn from(_: Rejected) -> Self {
        Self
    }
}

#[derive(Clone)]
struct Numbered;

impl Rules<Plain, Plain, PlainError> for Numbered {
    fn replay(&self, request: &Plain, _: u32) -> Option<Plain> {
        Some(Plain(request.0))
    }

    fn mark(&self, request: &mut Plain, attempt: u32) {
        request.0 = attempt;
    }

    fn decide(&self, request: &Plain, result: Result<&Plain, &PlainError>) -> Decision {
        assert_eq!(request.0, 0, "what is kept is not written to");
        result.is_err().into()
    }
}

#[tokio::test(start_paused = true)]
async fn neither_request_nor_answer_nor_error_has_to_be_clone_and_each_attempt_knows_its_number() {
    for (attempts, expected) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3])] {
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let log = Arc::clone(&seen);
        let failing = service_fn(move |request: Plain| {
            log.lock().unwrap().push(request.0);
            ready(Err::<Plain, _>(PlainError))
        });
        let service = RetryLayer::new(attempts).rules(Numbered).layer(failing);
        assert!(service.oneshot(Plain(0)).await.is_err());
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_sent_once() {
    #[derive(Clone)]
    struct Streams;
    impl Rules<(), u16, BoxError> for Streams {
        fn replay(&self, (): &(), attempt: u32) -> Option<()> {
            (attempt == 1).then_some(())
        }
        fn decide(&self, (): &(), _: Result<&u16, &BoxError>) -> Decision {
            Decision::Retry { after: None }
        }
    }
    // It may be copied for the first attempt, so the second is the last.
    let error = RetryLayer::new(5)
        .rules(Streams)
        .layer(good_from(9))
        .oneshot(())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "failure 2");
}

#[tokio::test(start_paused = true)]
async fn a_finished_call_holds_nothing_though_its_future_lives() {
    // Fails, then succeeds, is refused, or is not ready again.
    for end in 0..3 {
        let (sent, answered) = (Arc::new(()), Arc::new(()));
        let budget = RetryBudget::new(0.0, 1);
        let answer = Arc::clone(&answered);
        let mut inner = peer(move |call, _: Arc<()>| match call {
            2 if end == 1 => Err(open()),
            _ => Ok(200 + call as u16),
        });
        inner.readiness = Some(match end {
            2 => |calls| match calls {
                0 => Poll::Ready(Ok(())),
                _ => Poll::Ready(Err("not ready".into())),
            },
            _ => |_| Poll::Ready(Ok(())),
        });
        let inner = inner.map_response(move |status| (status, Arc::clone(&answer)));
        let mut service = RetryLayer::new(3)
            .backoff(exactly(100))
            .budget(budget.clone())
            .rules(|_: &Arc<()>, result: Result<&(u16, Arc<()>), &BoxError>| {
                matches!(result, Ok((201, _)))
            })
            .layer(inner);
        let call = service.ready().await.unwrap().call(Arc::clone(&sent));
        let mut call = std::pin::pin!(call);
        let (status, _) = call.as_mut().await.unwrap();
        assert_eq!(status, if end == 0 { 202 } else { 201 });
        assert_eq!(Arc::strong_count(&sent), 1, "the request");
        drop(service);
        assert_eq!(Arc::strong_count(&answered), 1, "the first response");
        let left = if end == 0 { 9 } else { 10 };
        assert_eq!(tokens_left(&budget).await, left, "the token");
    }
}

// Refusals and the real error.

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_tried_again_and_costs_no_token() {
    let refusals = [
        Reason::Open,
        Reason::ForcedOpen,
        Reason::Full { limit: 1 },
        Reason::QueueFull { limit: 1 },
        Reason::NoInstance,
    ];
    for reason in refusals {
        let budget = RetryBudget::new(0.0, 1);
        let log = Log::default();
        let refusing = peer(move |_, ()| Err(Rejected::new("inner", reason).into()));
        let calls = Arc::clone(&refusing.calls);
        // Not even rules that want every error tried again get a refusal.
        let layer = RetryLayer::new(3)
            .rules(|(): &(), result: Result<&u16, &BoxError>| result.is_err())
            .budget(budget.clone())
            .observe(log.clone());
        let service = layer.layer(refusing);
        for _ in 0..100 {
            let error = service.clone().oneshot(()).await.unwrap_err();
            assert_eq!(Rejected::find(&*error).unwrap().reason(), reason);
        }
        assert_eq!(calls.load(Relaxed), 100);
        assert_eq!(tokens_left(&budget).await, 10);
        assert!(log.take().is_empty());
    }
}

/// How many retries `budget` still pays for. Takes them.
async fn tokens_left(budget: &RetryBudget) -> u32 {
    let failing = peer(|call, ()| failure(call));
    let calls = Arc::clone(&failing.calls);
    let layer = RetryLayer::new(1000).budget(budget.clone());
    let layer = layer.backoff(exactly(0));
    let _ = layer.layer(failing).oneshot(()).await;
    calls.load(Relaxed) - 1
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_an_attempt_is_tried_again() {
    let calls = AtomicU32::new(0);
    let service = ServiceBuilder::new()
        .layer(three_attempts())
        .layer(TimeoutLayer::new(Duration::from_millis(50)))
        .service_fn(|()| {
            let call = calls.fetch_add(1, Relaxed) + 1;
            async move {
                if call < 3 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, BoxError>(call)
            }
        });
    assert_eq!(service.oneshot(()).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_readiness_error_of_a_later_attempt_does_not_replace_the_real_one() {
    let mut flaky = good_from(9);
    flaky.readiness = Some(|calls| match calls {
        0 => Poll::Ready(Ok(())),
        _ => Poll::Ready(Err("not ready".into())),
    });
    let calls = Arc::clone(&flaky.calls);
    let budget = RetryBudget::new(0.0, 1);
    let service = three_attempts().budget(budget.clone()).layer(flaky);
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 1");
    assert_eq!(calls.load(Relaxed), 1);
    assert_eq!(tokens_left(&budget).await, 10, "the attempt was never made");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_later_attempt_does_not_replace_the_real_error() {
    // The second attempt is one of three, or the last.
    for attempts in [2, 3] {
        let opening = peer(|call, ()| match call {
            1 => failure(1),
            _ => Err(open()),
        });
        let calls = Arc::clone(&opening.calls);
        let budget = RetryBudget::new(0.0, 1);
        let layer = RetryLayer::new(attempts).budget(budget.clone());
        let error = layer.layer(opening).oneshot(()).await.unwrap_err();
        assert_eq!(error.to_string(), "failure 1");
        assert_eq!(calls.load(Relaxed), 2);
        assert_eq!(tokens_left(&budget).await, 10, "a refusal costs nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_before_a_later_attempt_is_sent_does_not_replace_the_real_error() {
    let bulkhead = Bulkhead::new("peer", 1).queue(1, Duration::from_secs(60));
    let (one, held) = (bulkhead.clone(), Arc::new(Mutex::new(None)));
    // Somebody else takes the slot as soon as the first attempt has ended.
    let service = ServiceBuilder::new()
        .layer(
            three_attempts().rules(move |(): &(), result: Result<&u16, &BoxError>| {
                *held.lock().unwrap() = one.acquire().now_or_never();
                result.is_err()
            }),
        )
        .layer(bulkhead.layer())
        .service(good_from(9));
    let call = Deadline::within(Duration::from_secs(1)).scope(service.oneshot(()));
    assert_eq!(call.await.unwrap_err().to_string(), "failure 1");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_later_attempt_does_not_replace_a_response_either() {
    let opening = peer(|call, ()| match call {
        1 => Ok(503),
        _ => Err(open()),
    });
    let service = three_attempts()
        .rules(|(): &(), result: Result<&u16, &BoxError>| matches!(result, Ok(503)))
        .layer(opening);
    assert_eq!(service.oneshot(()).await.unwrap(), 503);
}

#[tokio::test(start_paused = true)]
async fn the_first_error_of_readiness_goes_to_the_caller() {
    let mut broken = good_from(1);
    broken.readiness = Some(|_| Poll::Ready(Err("not ready".into())));
    let error = three_attempts().layer(broken).oneshot(()).await;
    assert_eq!(error.unwrap_err().to_string(), "not ready");
}

// The deadline.

#[tokio::test(start_paused = true)]
async fn no_wait_begins_that_the_deadline_leaves_no_attempt_after() {
    // Left until the deadline, attempts made, time taken.
    for (left, expected, took) in [(100, 1, 0), (101, 2, 100), (200, 2, 100), (201, 3, 200)] {
        let failing = good_from(9);
        let calls = Arc::clone(&failing.calls);
        let budget = RetryBudget::new(0.0, 1);
        let service = three_attempts().budget(budget.clone()).layer(failing);
        let start = clock::now();
        let error = Deadline::within(Duration::from_millis(left))
            .scope(service.oneshot(()))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("failure {expected}"));
        assert_eq!(calls.load(Relaxed), expected);
        assert_eq!((clock::now() - start).as_millis(), took);
        assert_eq!(
            tokens_left(&budget).await,
            11 - expected,
            "no token without an attempt"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_at_the_deadline_with_the_real_error() {
    let mut stuck = good_from(9);
    stuck.readiness = Some(|calls| match calls {
        0 => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    });
    let budget = RetryBudget::new(0.0, 1);
    let service = three_attempts().budget(budget.clone()).layer(stuck);
    let start = clock::now();
    let error = Deadline::within(Duration::from_secs(1))
        .scope(service.oneshot(()))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "failure 1");
    assert_eq!(clock::now() - start, Duration::from_secs(1));
    assert_eq!(tokens_left(&budget).await, 10);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_turn_comes_after_the_deadline_is_not_made() {
    let failing = good_from(9);
    let calls = Arc::clone(&failing.calls);
    let service = three_attempts().layer(failing);
    let deadline = Deadline::within(Duration::from_millis(150));
    let mut call = tokio_test::task::spawn(deadline.scope(service.oneshot(())));
    assert!(call.poll().is_pending());
    // The runtime was busy: the wait was over in time, but nobody came.
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(call.await.unwrap_err().to_string(), "failure 1");
    assert_eq!(calls.load(Relaxed), 1);
}

// The time in all.

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_longest_time_and_the_last_wait_is_cut_to_it() {
    // The longest time, how long an attempt takes; attempts made, the time that the last one began.
    let table = [
        (0, 0, 1, 0),
        (50, 0, 2, 50),
        (100, 0, 2, 100),
        (150, 0, 3, 150),
        (1000, 0, 5, 400),
        (150, 100, 2, 150),
        (100, 100, 1, 0),
        (250, 100, 2, 200),
        (350, 100, 3, 350),
    ];
    for (limit, takes, expected, began) in table {
        let start = clock::now();
        let begun: Arc<Mutex<Vec<u128>>> = Arc::default();
        let log = Arc::clone(&begun);
        let failing = service_fn(move |()| {
            log.lock().unwrap().push((clock::now() - start).as_millis());
            async move {
                clock::sleep(Duration::from_millis(takes)).await;
                Err::<u16, BoxError>("reset".into())
            }
        });
        let layer = RetryLayer::new(5).backoff(exactly(100)).budget(None);
        let layer = layer.give_up_after(Duration::from_millis(limit));
        let error = layer.layer(failing).oneshot(()).await.unwrap_err();
        assert_eq!(error.to_string(), "reset");
        let begun = begun.lock().unwrap();
        assert_eq!((begun.len(), begun[begun.len() - 1]), (expected, began));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_asked_for_is_not_cut_to_the_longest_time() {
    let start = clock::now();
    let within = |secs| overloaded(2).give_up_after(Duration::from_secs(secs));
    within(1).layer(good_from(2)).oneshot(()).await.unwrap_err();
    assert_eq!(clock::now(), start);
    // The spread is.
    within(2).layer(good_from(2)).oneshot(()).await.unwrap();
    assert_eq!((clock::now() - start).as_millis(), 2000);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_rules_over_the_longest_time() {
    let start = clock::now();
    let layer = three_attempts().give_up_after(Duration::from_secs(9));
    let call = layer.layer(good_from(9)).oneshot(());
    let deadline = Deadline::within(Duration::from_millis(150));
    let error = deadline.scope(call).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 2");
    assert_eq!((clock::now() - start).as_millis(), 100);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_with_the_longest_time_and_the_real_error() {
    let mut stuck = good_from(9);
    stuck.readiness = Some(|calls| match calls {
        0 => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    });
    let start = clock::now();
    let layer = three_attempts().give_up_after(Duration::from_secs(1));
    let error = layer.layer(stuck).oneshot(()).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 1");
    assert!((clock::now() - start).abs_diff(Duration::from_secs(1)) <= Duration::from_millis(3));
}

// What the rules and the peer ask for.

#[tokio::test(start_paused = true)]
async fn the_rules_can_name_the_wait_and_it_is_exact() {
    let start = clock::now();
    let rules = |(): &(), result: Result<&u16, &BoxError>| match result {
        Err(error) if error.to_string() == "failure 1" => Decision::RetryIn(Duration::ZERO),
        Err(_) => Decision::RetryIn(Duration::from_secs(60)),
        Ok(_) => Decision::Done,
    };
    let service = three_attempts().rules(rules).layer(good_from(3));
    assert_eq!(service.oneshot(()).await.unwrap(), 3);
    assert_eq!(clock::now() - start, Duration::from_secs(60));
}

fn overloaded(after: u64) -> RetryLayer<impl Rules<(), u16, BoxError> + Clone> {
    three_attempts().rules(
        move |(): &(), result: Result<&u16, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Overload(Some(Duration::from_secs(after))),
        },
    )
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_the_peer_is_the_least_wait() {
    for (after, expected) in [(0, 100), (2, 2000), (10, 10_000)] {
        let start = clock::now();
        let service = overloaded(after).hint_spread(0.0).layer(good_from(2));
        assert_eq!(service.oneshot(()).await.unwrap(), 2);
        assert_eq!((clock::now() - start).as_millis(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_sends_no_fleet_back_at_one_instant_and_nobody_too_soon_or_much_too_late() {
    let mut waits = Vec::new();
    for _ in 0..200 {
        let start = clock::now();
        let service = overloaded(5).layer(good_from(2));
        assert_eq!(service.oneshot(()).await.unwrap(), 2);
        waits.push((clock::now() - start).as_millis());
    }
    waits.sort_unstable();
    assert!(waits[0] >= 5000 && waits[199] <= 6001, "{waits:?}");
    let most = waits.chunk_by(|a, b| a / 100 == b / 100).map(<[_]>::len);
    let most = most.max().unwrap();
    assert!(most < 60, "{most} of 200 come back within 100 ms");
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_deadline_or_the_longest_ends_the_call_at_once() {
    let start = clock::now();
    let service = overloaded(2).layer(good_from(2));
    let deadline = Deadline::within(Duration::from_secs(2));
    deadline.scope(service.oneshot(())).await.unwrap_err();

    let service = overloaded(11).layer(good_from(2));
    service.oneshot(()).await.unwrap_err();
    assert_eq!(clock::now(), start);

    let layer = overloaded(3600)
        .longest_hint(Duration::from_secs(3600))
        .hint_spread(0.0);
    assert_eq!(layer.layer(good_from(2)).oneshot(()).await.unwrap(), 2);
    assert_eq!(clock::now() - start, Duration::from_secs(3600));
}

// The budget.

#[tokio::test(start_paused = true)]
async fn a_half_failing_peer_gets_a_fifth_more_calls_and_not_twice_as_many() {
    let half = peer(|call, ()| {
        if call % 2 == 0 {
            Ok(200)
        } else {
            failure(call)
        }
    });
    let calls = Arc::clone(&half.calls);
    let service = RetryLayer::new(3).backoff(exactly(0)).layer(half);
    for _ in 0..10_000 {
        let _ = service.clone().oneshot(()).await;
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let extra = calls.load(Relaxed) - 10_000;
    assert!((1500..=2030).contains(&extra), "{extra} retries");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_ends_the_call_with_its_last_result_and_says_so() {
    let log = Log::default();
    let layer = RetryLayer::new(100)
        .name("orders")
        .backoff(exactly(0))
        .budget(RetryBudget::new(2.0, 0))
        .observe(log.clone());
    let error = layer.layer(good_from(99)).oneshot(()).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 3");
    let expected = [
        r#"Retrying { retry: "orders", attempt: 2, wait: 0ns }"#,
        r#"Retrying { retry: "orders", attempt: 3, wait: 0ns }"#,
        r#"BudgetExhausted { retry: "orders" }"#,
        r#"GaveUp { retry: "orders", attempts: 3, reason: BudgetExhausted }"#,
    ];
    assert_eq!(log.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn calls_that_a_layer_inside_refused_pay_for_no_retries() {
    let budget = RetryBudget::new(1.0, 0);
    let refused_at_first = peer(|call, ()| {
        if call <= 100 {
            Err(open())
        } else {
            failure(call)
        }
    });
    let calls = Arc::clone(&refused_at_first.calls);
    let layer = RetryLayer::new(1000).backoff(exactly(0)).budget(budget);
    let service = layer.layer(refused_at_first);
    for _ in 0..101 {
        service.clone().oneshot(()).await.unwrap_err();
    }
    assert_eq!(
        calls.load(Relaxed),
        102,
        "one retry for the one that was sent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_the_calls_under_way_lets_as_many_retry_at_once_as_it_has_places() {
    let budget = RetryBudget::in_flight(0.2, 2);
    let failing = peer(|call, ()| failure(call));
    let calls = Arc::clone(&failing.calls);
    let layer = RetryLayer::new(2).backoff(exactly(100)).budget(budget);
    let service = layer.layer(failing);
    let mut together = Vec::new();
    for _ in 0..20 {
        together.push(tokio::spawn(service.clone().oneshot(())));
    }
    for call in together {
        call.await.unwrap().unwrap_err();
    }
    // Those that did not get a place ended and so made the share smaller for the next.
    let retried = calls.load(Relaxed) - 20;
    assert!((2..=5).contains(&retried), "{retried}");

    // Nothing is remembered, and nothing is lost: all alone, each has its place.
    for _ in 0..10 {
        let before = calls.load(Relaxed);
        service.clone().oneshot(()).await.unwrap_err();
        assert_eq!(calls.load(Relaxed) - before, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_retry_leaves_its_place_to_the_next_and_a_dropped_call_all_of_its_own() {
    let budget = RetryBudget::in_flight(0.0, 1);
    let failing = peer(|call, ()| failure(call));
    let calls = Arc::clone(&failing.calls);
    let layer = RetryLayer::new(4).backoff(exactly(100)).budget(budget);
    let service = layer.layer(failing);
    service.clone().oneshot(()).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 4, "one place serves them all");

    let waits = tokio::spawn(service.clone().oneshot(()));
    clock::sleep(Duration::from_millis(50)).await;
    service.clone().oneshot(()).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 6, "the other call has the place");
    waits.abort();
    let _ = waits.await;
    service.oneshot(()).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn a_budget_says_what_it_allows_and_takes_new_figures_while_calls_are_under_way() {
    for budget in [RetryBudget::new(0.5, 1), RetryBudget::in_flight(0.5, 1)] {
        let failing = peer(|call, ()| failure(call));
        let calls = Arc::clone(&failing.calls);
        let layer = RetryLayer::new(9)
            .backoff(exactly(100))
            .budget(budget.clone());
        let service = layer.layer(failing);
        assert_eq!((budget.share(), budget.floor()), (0.5, 1));
        assert!(budget.available() >= 1);

        // The second attempt is paid for already; there is no third.
        let mut call = tokio_test::task::spawn(service.clone().oneshot(()));
        assert!(call.poll().is_pending());
        budget.reconfigure(0.0, 0);
        assert_eq!(budget.available(), 0);
        call.await.unwrap_err();
        assert_eq!(calls.load(Relaxed), 2);
        service.clone().oneshot(()).await.unwrap_err();
        assert_eq!(calls.load(Relaxed), 3, "no retry at all");

        // A clone steers it too, and that for the inner of two layers.
        budget.without_deposits().reconfigure(0.0, 9);
        assert_eq!((budget.share(), budget.floor()), (0.0, 9));
        service.oneshot(()).await.unwrap_err();
        assert_eq!(calls.load(Relaxed), 12);
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_changed_has_lost_nothing_that_was_counted() {
    let budget = RetryBudget::new(0.1, 0);
    let layer = RetryLayer::new(2)
        .backoff(exactly(0))
        .budget(budget.clone());
    let service = layer.layer(peer(|_, good| if good { Ok(1) } else { failure(0) }));
    for good in 0..100 {
        let _ = service.clone().oneshot(good != 50).await;
    }
    assert_eq!(budget.available(), 9);
    budget.reconfigure(0.0, 0);
    budget.reconfigure(0.2, 0);
    assert_eq!(budget.available(), 19);
}

#[tokio::test(start_paused = true)]
async fn calls_that_cannot_be_tried_again_pay_for_those_that_can() {
    #[derive(Clone)]
    struct Gets;
    impl Rules<bool, u16, BoxError> for Gets {
        fn replay(&self, get: &bool, _: u32) -> Option<bool> {
            get.then_some(true)
        }
        fn decide(&self, _: &bool, result: Result<&u16, &BoxError>) -> Decision {
            result.is_err().into()
        }
    }
    let failing = peer(|call, _: bool| failure(call));
    let calls = Arc::clone(&failing.calls);
    let layer = RetryLayer::new(1000).rules(Gets).backoff(exactly(0));
    let service = layer.budget(RetryBudget::new(1.0, 0)).layer(failing);
    service.clone().oneshot(false).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 1);
    service.oneshot(true).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn services_clones_and_layers_of_one_layer_share_its_budget() {
    let layer = RetryLayer::new(1000).backoff(exactly(0));
    let failing = good_from(u32::MAX);
    let calls = Arc::clone(&failing.calls);
    let first = layer.layer(failing.clone());
    let second = layer.clone().layer(failing);
    let _ = first.clone().oneshot(()).await;
    assert_eq!(calls.load(Relaxed), 31, "three a second over ten seconds");
    let _ = first.oneshot(()).await;
    let _ = second.oneshot(()).await;
    assert_eq!(calls.load(Relaxed), 33, "nothing is left for the others");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_ends_at_once_and_gives_its_token_back() {
    let budget = RetryBudget::new(0.0, 1);
    let service = three_attempts().budget(budget.clone()).layer(good_from(9));
    let mut call = tokio_test::task::spawn(service.oneshot(()));
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!(tokens_left(&budget).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_has_cost_its_token() {
    let budget = RetryBudget::new(0.0, 1);
    let calls = AtomicU32::new(0);
    let layer = three_attempts().budget(budget.clone());
    let service = layer.layer(service_fn(|()| {
        let call = calls.fetch_add(1, Relaxed) + 1;
        async move {
            if call > 1 {
                std::future::pending::<()>().await;
            }
            failure(call)
        }
    }));
    let mut call = tokio_test::task::spawn(service.oneshot(()));
    assert!(call.poll().is_pending());
    tokio::time::advance(Duration::from_millis(101)).await;
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!(calls.load(Relaxed), 2);
    assert_eq!(tokens_left(&budget).await, 9);
}

// Readiness.

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_called_and_each_attempt_waits_for_readiness() {
    // `Peer` panics if it is called unready, and a clone of it is unready.
    let mut service = three_attempts().layer(good_from(3));
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 3);
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_later_attempt_waits_until_the_service_is_ready_again() {
    let (mock, mut handle) = tower_test::mock::pair::<&str, &str>();
    handle.allow(1);
    let service = three_attempts().layer(mock);
    let mut call = tokio_test::task::spawn(service.oneshot("ping"));
    assert!(call.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_error("reset");
    assert!(call.poll().is_pending());
    tokio::time::advance(Duration::from_millis(101)).await;
    assert!(call.poll().is_pending());
    assert!(!call.is_woken(), "nothing is polled in vain");
    handle.allow(1);
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response("pong");
    assert_eq!(call.await.unwrap(), "pong");
}

// What is told.

/// How many attempts were made of each call that was given up, and why there were no more.
#[derive(Clone, Default)]
struct GivenUp(Arc<Mutex<Vec<(u32, GiveUp)>>>);

impl Observe for GivenUp {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::GaveUp {
            retry: "orders",
            attempts,
            reason,
        } = event
        {
            self.0.lock().unwrap().push((*attempts, *reason));
        }
    }
}

impl GivenUp {
    fn take(&self) -> Vec<(u32, GiveUp)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_says_after_how_many_attempts_and_why() {
    let told = GivenUp::default();
    let layer = || three_attempts().name("orders").observe(told.clone());
    let failing = || peer(|call, ()| failure(call));
    let rules = |after| {
        move |(): &(), result: Result<&u16, &BoxError>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Overload(Some(Duration::from_secs(after))),
        }
    };
    let seconds = |secs| Deadline::within(Duration::from_secs(secs));

    layer().layer(failing()).oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(3, GiveUp::AttemptsUsedUp)]);

    let retry = layer().budget(RetryBudget::new(1.0, 0));
    retry.layer(failing()).oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(2, GiveUp::BudgetExhausted)]);

    let deadline = Deadline::within(Duration::from_millis(150));
    let call = deadline.scope(layer().layer(failing()).oneshot(()));
    call.await.unwrap_err();
    assert_eq!(told.take(), [(2, GiveUp::OutOfTime)]);

    let retry = layer().give_up_after(Duration::from_millis(100));
    retry.layer(failing()).oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(2, GiveUp::OutOfTime)]);

    let retry = layer().rules(rules(5)).layer(failing());
    seconds(4).scope(retry.oneshot(())).await.unwrap_err();
    assert_eq!(told.take(), [(1, GiveUp::OutOfTime)]);

    let retry = layer().rules(rules(11)).layer(failing());
    retry.oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(1, GiveUp::HintTooLong)]);

    let opening = peer(|call, ()| if call < 3 { failure(call) } else { Err(open()) });
    layer().layer(opening).oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(2, GiveUp::Refused)]);

    let mut unready = failing();
    unready.readiness = Some(|calls| match calls {
        0 => Poll::Ready(Ok(())),
        _ => Poll::Ready(Err("not ready".into())),
    });
    layer().layer(unready).oneshot(()).await.unwrap_err();
    assert_eq!(told.take(), [(1, GiveUp::Refused)]);

    let mut busy = failing();
    busy.readiness = Some(|calls| match calls {
        0 => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    });
    let retry = layer().layer(busy);
    seconds(1).scope(retry.oneshot(())).await.unwrap_err();
    assert_eq!(told.take(), [(1, GiveUp::OutOfTime)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_asked_for_another_attempt_to_the_last_is_given_up_where_the_rules_say_so() {
    #[derive(Clone)]
    struct Overloaded;

    impl Rules<(), u16, BoxError> for Overloaded {
        fn replay(&self, (): &(), _: u32) -> Option<()> {
            Some(())
        }

        fn decide(&self, (): &(), result: Result<&u16, &BoxError>) -> Decision {
            self.is_failure(result).into()
        }

        fn is_failure(&self, result: Result<&u16, &BoxError>) -> bool {
            matches!(result, Ok(503))
        }

        fn is_refusal(&self, _: &BoxError) -> bool {
            false
        }
    }

    let told = GivenUp::default();
    let layer = three_attempts().name("orders").observe(told.clone());
    let service = layer.rules(Overloaded).layer(peer(|_, ()| Ok(503)));
    assert_eq!(service.oneshot(()).await.unwrap(), 503);
    assert_eq!(told.take(), [(3, GiveUp::AttemptsUsedUp)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_as_it_should_is_not_given_up() {
    let told = GivenUp::default();
    let named = |layer: RetryLayer| layer.name("orders").observe(told.clone());
    for good in 1..=3 {
        let service = named(three_attempts()).layer(good_from(good));
        service.oneshot(()).await.unwrap();
    }
    // What the rules take for final: in the first attempt and the second.
    for last in 1..=2 {
        let final_at = move |(): &(), result: Result<&u16, &BoxError>| {
            result.is_err_and(|error| error.to_string() != format!("failure {last}"))
        };
        let service = named(three_attempts()).rules(final_at).layer(good_from(9));
        let error = service.oneshot(()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("failure {last}"));
    }
    // The refusal of a layer inside, which that told itself, and a retry that makes one attempt.
    let refusing = named(three_attempts()).layer(peer(|_, ()| Err(open())));
    refusing.oneshot(()).await.unwrap_err();
    let once = named(RetryLayer::new(1)).layer(good_from(9));
    once.oneshot(()).await.unwrap_err();
    // Who is cancelled gives up by himself.
    let waiting = named(three_attempts()).layer(good_from(9));
    assert!(waiting.oneshot(()).now_or_never().is_none());
    assert_eq!(told.take(), []);
}

#[tokio::test(start_paused = true)]
async fn who_listens_costs_no_copy() {
    for (good, expected) in [(1, &[1][..]), (2, &[1, 2]), (9, &[1, 2])] {
        let copies: Arc<Mutex<Vec<u32>>> = Arc::default();
        let order = Order {
            copies: Arc::clone(&copies),
            original: true,
        };
        let peer = peer(move |call, _: Order| if call < good { failure(call) } else { Ok(200) });
        let layer = three_attempts().observe(Log::default()).rules(CopyOrders);
        let _ = layer.layer(peer).oneshot(order).await;
        assert_eq!(*copies.lock().unwrap(), expected);
    }
}

#[test]
#[should_panic(expected = "at least one attempt")]
fn no_attempt_at_all_is_refused() {
    let _ = RetryLayer::new(0);
}
