//! Who shares a call, who goes on with it, and what each of them gets.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use buttress::clock;
use buttress::error::{Error, ErrorLayer, Reason, Rejected};
use buttress::layers::coalesce::{Batch, BatchLayer, CoalesceLayer};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Deadline};
use futures_util::FutureExt;
use tokio_test::task::spawn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Counts the calls of a service, and those of them that were dropped before they ended.
#[derive(Clone, Default)]
struct Count {
    calls: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
}

impl Count {
    fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    fn dropped(&self) -> u32 {
        self.dropped.load(Relaxed)
    }

    fn begin(&self) -> Running {
        self.calls.fetch_add(1, Relaxed);
        Running(Some(Arc::clone(&self.dropped)))
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
        if let Some(dropped) = &self.0 {
            dropped.fetch_add(1, Relaxed);
        }
    }
}

trait Subject<T>:
    Service<u64, Response = T, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}

impl<S, T> Subject<T> for S where
    S: Service<u64, Response = T, Error = BoxError, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

/// Answers after 100 ms with the number of the call.
fn slow(count: &Count) -> impl Subject<u32> + use<> {
    let count = count.clone();
    service_fn(move |_: u64| {
        let running = count.begin();
        let call = count.calls();
        async move {
            clock::sleep(ms(100)).await;
            running.end();
            Ok::<_, BoxError>(call)
        }
    })
}

/// As [`slow`], with an error.
fn failing(count: &Count) -> impl Subject<u32> + use<> {
    let count = count.clone();
    service_fn(move |_: u64| {
        count.begin().end();
        async {
            clock::sleep(ms(100)).await;
            Err::<u32, BoxError>(Box::new(Reset(Root)))
        }
    })
}

/// An error with a cause.
#[derive(Clone, Debug)]
struct Reset(Root);

#[derive(Clone, Debug)]
struct Root;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl StdError for Reset {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("root")
    }
}

impl StdError for Root {}

fn has<E: StdError + 'static>(error: &BoxError) -> bool {
    let first: &(dyn StdError + 'static) = &**error;
    let mut next = Some(first);
    while let Some(cause) = next {
        if cause.is::<E>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn reason(error: &BoxError) -> Option<Reason> {
    Rejected::find(&**error).map(Rejected::reason)
}

fn was_never_sent(error: &BoxError) -> bool {
    Rejected::find(&**error).is_some_and(Rejected::never_sent)
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Refused(rejected) = event {
            self.0.lock().unwrap().push(rejected.to_string());
        }
    }
}

/// Those who shared the call of another, by the name of the layer.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<BTreeMap<String, u32>>>);

impl Observe for Shared {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Coalesced { coalesce } = event {
            let mut shared = self.0.lock().unwrap();
            *shared.entry((*coalesce).to_owned()).or_default() += 1;
        }
    }
}

impl Shared {
    fn take(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// One flight a key.

#[tokio::test(start_paused = true)]
async fn each_caller_who_makes_no_call_is_told_and_no_other() {
    let (count, told) = (Count::default(), Shared::default());
    let layer = CoalesceLayer::new(|key: &u64| key % 2).observe(told.clone());
    let named = layer.clone().name("articles").layer(slow(&count));
    let service = layer.layer(slow(&count));
    let calls: Vec<_> = (0..100)
        .map(|n| tokio::spawn(service.clone().oneshot(n)))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(count.calls(), 2);
    assert_eq!(told.take(), BTreeMap::from([("coalesce".to_owned(), 98)]));

    // One after the other, each makes its own. Who goes on with the call of another is told once.
    named.clone().oneshot(1).await.unwrap();
    named.clone().oneshot(1).await.unwrap();
    assert_eq!(told.take(), BTreeMap::new());
    let mut leader = spawn(named.clone().oneshot(1));
    let mut heir = spawn(named.oneshot(1));
    assert!(leader.poll().is_pending() && heir.poll().is_pending());
    drop(leader);
    heir.await.unwrap();
    assert_eq!(told.take(), BTreeMap::from([("articles".to_owned(), 1)]));
}

#[tokio::test(start_paused = true)]
async fn one_call_answers_all_who_ask_for_its_key_meanwhile() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| key % 2).layer(slow(&count));
    let start = clock::now();
    let calls: Vec<_> = (0..100)
        .map(|n| tokio::spawn(service.clone().oneshot(n)))
        .collect();
    let mut answers = BTreeMap::new();
    for call in calls {
        *answers.entry(call.await.unwrap().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(1, 50), (2, 50)]));
    assert_eq!(count.calls(), 2);
    assert!(clock::now() - start <= ms(102));
    assert_eq!(service.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_given_to_who_comes_after_it() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&count));
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 1);
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 2);

    // Nor while one who waited for it has not fetched it yet.
    let mut leader = spawn(service.clone().oneshot(7));
    let mut follower = spawn(service.clone().oneshot(7));
    assert!(leader.poll().is_pending());
    assert!(follower.poll().is_pending());
    tokio::time::advance(ms(101)).await;
    assert!(leader.poll().is_ready());
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 4);
    assert_eq!(follower.await.unwrap(), 3);
    assert_eq!(service.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_finished_call_is_forgotten_though_its_future_lives() {
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&Count::default()));
    let mut call = pin!(service.clone().oneshot(7));
    call.as_mut().await.unwrap();
    assert_eq!(service.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_polled_before_there_is_something_for_them() {
    let polls = Arc::new(AtomicU32::new(0));
    let wakes = 50;
    // A call that needs many polls, and 100 who wait for it.
    let service =
        CoalesceLayer::new(|key: &u64| *key).layer(service_fn(move |_: u64| async move {
            for _ in 0..wakes {
                clock::sleep(ms(2)).await;
            }
            Ok::<_, BoxError>(())
        }));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut call = Box::pin(service.clone().oneshot(7));
            let polls = Arc::clone(&polls);
            tokio::spawn(poll_fn(move |cx| {
                polls.fetch_add(1, Relaxed);
                call.as_mut().poll(cx)
            }))
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let polls = polls.load(Relaxed);
    assert!(polls <= wakes + 1 + 2 * 99, "{polls} polls");
}

#[tokio::test(start_paused = true)]
async fn ten_who_wait_are_all_woken_and_all_finish() {
    let service = CoalesceLayer::new(|_: &u64| ()).layer(service_fn(|n: u64| async move {
        clock::sleep(ms(100)).await;
        Ok::<_, BoxError>(n)
    }));
    let mut callers: Vec<_> = (0..10).map(|n| spawn(service.clone().oneshot(n))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    tokio::time::advance(ms(101)).await;
    for mut caller in callers {
        assert!(caller.is_woken());
        assert!(matches!(caller.poll(), Poll::Ready(Ok(0))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_leader_hands_over_and_the_call_goes_on() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&count));
    let start = clock::now();
    let mut callers: Vec<_> = (0..5).map(|_| spawn(service.clone().oneshot(7))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    // One after the other leaves, always the one who polls the call.
    for n in 0..4 {
        tokio::time::advance(ms(20)).await;
        drop(callers.remove(0));
        assert!(callers[0].is_woken(), "heir number {n}");
        assert!(callers.iter().skip(1).all(|other| !other.is_woken()));
        assert!(callers[0].poll().is_pending());
    }
    assert_eq!(callers.remove(0).await.unwrap(), 1);
    assert!(clock::now() - start <= ms(102), "it was not begun again");
    assert_eq!((count.calls(), count.dropped()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_a_cancelled_leader_took_along_is_not_lost() {
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&Count::default()));
    let mut leader = spawn(service.clone().oneshot(7));
    let mut follower = spawn(service.clone().oneshot(7));
    assert!(leader.poll().is_pending());
    assert!(follower.poll().is_pending());
    tokio::time::advance(ms(101)).await;
    assert!(leader.is_woken());
    drop(leader);
    assert!(follower.is_woken());
    assert!(follower.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_last_to_leave_drops_the_call() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&count));
    let mut callers: Vec<_> = (0..3).map(|_| spawn(service.clone().oneshot(7))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    drop(callers.remove(1));
    drop(callers.remove(0));
    assert_eq!((count.dropped(), service.in_flight()), (0, 1));
    drop(callers);
    assert_eq!((count.dropped(), service.in_flight()), (1, 0));
    assert_eq!(service.oneshot(7).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_never_polls_keeps_nobody_waiting() {
    let count = Count::default();
    let mut service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&count));
    let _idle = service.call(7);
    assert_eq!(service.oneshot(7).await.unwrap(), 1);
    assert_eq!(count.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_leaders_and_the_others_are_told() {
    let log = Log::default();
    let calls = AtomicU32::new(0);
    let layer = CoalesceLayer::new(|key: &u64| *key)
        .name("prices")
        .observe(log.clone());
    let service = layer.layer(service_fn(|_: u64| {
        let call = calls.fetch_add(1, Relaxed);
        async move {
            clock::sleep(ms(100)).await;
            assert!(call > 0, "the first call panics");
            Ok::<_, BoxError>(call)
        }
    }));
    let mut leader = spawn(AssertUnwindSafe(service.clone().oneshot(7)).catch_unwind());
    let mut follower = spawn(service.clone().oneshot(7));
    assert!(leader.poll().is_pending());
    assert!(follower.poll().is_pending());
    tokio::time::advance(ms(101)).await;
    let Poll::Ready(Err(_)) = leader.poll() else {
        panic!("no panic");
    };
    assert!(follower.is_woken());
    let error = follower.await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::Panicked));
    assert!(!was_never_sent(&error), "the peer saw the call");
    let told = "coalesce `prices`: the shared call panicked";
    assert_eq!(*log.0.lock().unwrap(), [told]);
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 1);
    drop(leader);
    assert_eq!(service.in_flight(), 0);
}

// What each gets.

#[tokio::test(start_paused = true)]
async fn the_last_to_be_answered_gets_the_answer_itself() {
    struct Page(Arc<AtomicU32>);
    impl Clone for Page {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Relaxed);
            Self(Arc::clone(&self.0))
        }
    }
    for callers in [1, 2, 5] {
        let clones = Arc::new(AtomicU32::new(0));
        let service = CoalesceLayer::new(|key: &u64| *key).layer(service_fn(|_: u64| {
            let page = Page(Arc::clone(&clones));
            async {
                clock::sleep(ms(10)).await;
                Ok::<_, BoxError>(page)
            }
        }));
        let calls = (0..callers).map(|_| service.clone().oneshot(7));
        futures_util::future::join_all(calls).await;
        assert_eq!(clones.load(Relaxed), callers - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_answers_all_with_its_causes() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| *key).layer(failing(&count));
    let calls = (0..5).map(|_| service.clone().oneshot(7));
    for result in futures_util::future::join_all(calls).await {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "reset");
        assert!(has::<Reset>(&error) && has::<Root>(&error));
    }
    assert_eq!(count.calls(), 1);
    let alone = service.oneshot(7).await.unwrap_err();
    assert!(alone.is::<Reset>(), "nothing is put around it for one");
}

#[tokio::test(start_paused = true)]
async fn typed_errors_are_cloned_and_others_are_shared_as_told() {
    let typed = ServiceBuilder::new()
        .layer(CoalesceLayer::new(|key: &u64| *key))
        .layer(ErrorLayer)
        .service(service_fn(|_: u64| async {
            clock::sleep(ms(10)).await;
            Err::<(), _>(Reset(Root))
        }));
    let (a, b) = tokio::join!(typed.clone().oneshot(7), typed.clone().oneshot(7));
    assert!(matches!(a, Err(Error::Inner(Reset(_)))));
    assert!(matches!(b, Err(Error::Inner(Reset(_)))));

    // A foreign error that is not `Clone`: how it is shared is said by the layer.
    struct Status(u16);
    impl From<Rejected> for Status {
        fn from(_: Rejected) -> Self {
            Self(503)
        }
    }
    let layer = CoalesceLayer::new(|key: &u64| *key).share(|status: &Status| Status(status.0));
    let foreign = layer.layer(service_fn(|_: u64| async {
        clock::sleep(ms(10)).await;
        Err::<(), _>(Status(404))
    }));
    let (a, b) = tokio::join!(foreign.clone().oneshot(7), foreign.clone().oneshot(7));
    assert!(matches!((a, b), (Err(Status(404)), Err(Status(404)))));
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_call_needs_no_slot_inside() {
    let count = Count::default();
    let service = ServiceBuilder::new()
        .layer(CoalesceLayer::new(|key: &u64| *key))
        .concurrency_limit(1)
        .service(slow(&count));
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    let calls = (0..3).map(|_| service.clone().oneshot(7));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(count.calls(), 1);
}

// The deadline.

#[tokio::test(start_paused = true)]
async fn each_caller_leaves_at_its_own_deadline_and_takes_nobody_along() {
    let count = Count::default();
    let log = Log::default();
    let layer = CoalesceLayer::new(|key: &u64| *key).observe(log.clone());
    // A limit inside takes the deadline in force into account.
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(TimeoutLayer::new(ms(5000)))
        .service(slow(&count));
    let start = clock::now();
    let within = |limit| {
        let call = Deadline::within(ms(limit)).scope(service.clone().oneshot(7));
        async move { (call.await, (clock::now() - start).as_millis()) }
    };
    // The first is the leader, the second inherits the call, the third answers in time, and one has no deadline.
    let unbounded = service.clone().oneshot(7);
    let (first, second, third, fourth) =
        tokio::join!(within(30), within(60), within(200), unbounded);
    for ((result, at), limit) in [(first, 30), (second, 60)] {
        let error = result.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::DeadlineExceeded));
        assert!((limit..=limit + 2).contains(&at), "{at}");
    }
    assert_eq!(third.0.unwrap(), 1);
    assert_eq!(fourth.unwrap(), 1);
    assert_eq!((count.calls(), count.dropped()), (1, 0));
    let told = "coalesce: the deadline has passed";
    assert_eq!(*log.0.lock().unwrap(), [told, told]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_begins_no_call() {
    let count = Count::default();
    let service = CoalesceLayer::new(|key: &u64| *key).layer(slow(&count));
    let call = Deadline::at(clock::now()).scope(service.clone().oneshot(7));
    let error = call.await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::DeadlineExceeded));
    assert_eq!((count.calls(), service.in_flight()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_come_and_go_on_many_threads_are_all_answered() {
    let service = CoalesceLayer::new(|key: &u64| *key).layer(service_fn(|key: u64| async move {
        for _ in 0..key {
            tokio::task::yield_now().await;
        }
        Ok::<_, Rejected>(key)
    }));
    let callers: Vec<_> = (0..4000_u64)
        .map(|n| {
            let service = service.clone();
            tokio::spawn(async move {
                let call = service.oneshot(n % 7);
                if n % 3 > 0 {
                    assert_eq!(call.await.unwrap(), n % 7);
                    return;
                }
                // Leaves after a few polls.
                let leave = async {
                    for _ in 0..n % 5 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    answer = call => assert_eq!(answer.unwrap(), n % 7),
                    () = leave => {}
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(service.in_flight(), 0);
}

// Batches.

/// Asks for many numbers at once. What is odd is not in the answer, where `odd` is missing.
struct Numbers {
    odd: bool,
}

impl Batch for Numbers {
    type Request = u64;
    type Response = String;
    type Merged = Vec<u64>;
    type Answer = BTreeMap<u64, String>;

    fn merge(&self, numbers: &[u64]) -> Vec<u64> {
        numbers.to_vec()
    }

    fn split(&self, answer: BTreeMap<u64, String>, numbers: &[u64]) -> Vec<Option<String>> {
        let known = |number: &&u64| self.odd || *number % 2 == 0;
        let parts = numbers.iter().map(|number| {
            let part = Some(number).filter(known);
            part.and_then(|number| answer.get(number).cloned())
        });
        parts.collect()
    }
}

/// The batches that were sent, each with its time in milliseconds.
type Sent = Arc<Mutex<Vec<(u128, Vec<u64>)>>>;

/// A peer that names numbers in 50 ms; the batches it got.
fn names() -> (
    impl Service<Vec<u64>, Response = BTreeMap<u64, String>, Error = BoxError, Future: Send>
    + Clone
    + Send,
    Sent,
) {
    let sent = Sent::default();
    let log = Arc::clone(&sent);
    let start = clock::now();
    let service = service_fn(move |numbers: Vec<u64>| {
        let at = (clock::now() - start).as_millis();
        log.lock().unwrap().push((at, numbers.clone()));
        async move {
            clock::sleep(ms(50)).await;
            if numbers.contains(&500) {
                return Err::<_, BoxError>(Box::new(Reset(Root)));
            }
            assert!(!numbers.contains(&666), "the peer's driver panics");
            let names = numbers.into_iter().map(|n| (n, format!("number {n}")));
            Ok(names.collect())
        }
    });
    (service, sent)
}

fn batches() -> BatchLayer<Numbers> {
    BatchLayer::new(Numbers { odd: true }).window(ms(10))
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_window_are_sent_as_one_and_each_gets_its_own() {
    let (names, sent) = names();
    let service = batches().layer(names);
    let calls = [3, 1, 2, 1].map(|n| service.clone().oneshot(n));
    let answers = futures_util::future::join_all(calls).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, ["number 3", "number 1", "number 2", "number 1"]);
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, [3, 1, 2, 1]);
    assert!((10..=11).contains(&sent[0].0), "at {}", sent[0].0);
}

#[tokio::test(start_paused = true)]
async fn each_caller_who_joins_a_batch_is_told_and_who_begins_one_is_not() {
    let ((names, sent), told) = (names(), Shared::default());
    let service = batches().size(2).observe(told.clone()).layer(names);
    let calls = (0..5).map(|n| service.clone().oneshot(n));
    futures_util::future::join_all(calls).await;
    assert_eq!(sent.lock().unwrap().len(), 3);
    assert_eq!(told.take(), BTreeMap::from([("batch".to_owned(), 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_is_sent_at_once_and_the_next_call_begins_another() {
    let (names, sent) = names();
    let service = batches().size(2).window(ms(1000)).layer(names);
    let calls = (0..5).map(|n| tokio::spawn(service.clone().oneshot(n)));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let sent = sent.lock().unwrap();
    let batches: Vec<_> = sent.iter().map(|(_, batch)| batch.clone()).collect();
    assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
    assert!(sent[1].0 <= 1, "full ones wait for nothing");
    assert!(sent[2].0 >= 1000);
}

#[tokio::test(start_paused = true)]
async fn the_call_that_fills_a_batch_wakes_the_one_who_polls_it() {
    let (names, sent) = names();
    let service = batches().size(3).window(ms(1000)).layer(names);
    let mut callers: Vec<_> = (0..3).map(|n| spawn(service.clone().oneshot(n))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    assert!(callers[0].is_woken());
    assert!(!callers[1].is_woken() && !callers[2].is_woken());
    assert!(callers[0].poll().is_pending());
    assert_eq!(sent.lock().unwrap().len(), 1);
}

/// Even numbers and odd ones are never sent together.
struct Apart;

impl Batch for Apart {
    type Request = u64;
    type Response = String;
    type Merged = Vec<u64>;
    type Answer = BTreeMap<u64, String>;

    fn shard(&self, number: &u64) -> u64 {
        number % 2
    }

    fn merge(&self, numbers: &[u64]) -> Vec<u64> {
        numbers.to_vec()
    }

    fn split(&self, answer: BTreeMap<u64, String>, numbers: &[u64]) -> Vec<Option<String>> {
        numbers.iter().map(|n| answer.get(n).cloned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_different_shards_are_never_sent_together() {
    let (names, sent) = names();
    let service = BatchLayer::new(Apart).size(3).layer(names);
    let calls = (0..8).map(|n| service.clone().oneshot(n));
    for (answer, n) in futures_util::future::join_all(calls)
        .await
        .into_iter()
        .zip(0..)
    {
        assert_eq!(answer.unwrap(), format!("number {n}"));
    }
    let mut sent: Vec<_> = sent.lock().unwrap().iter().map(|it| it.1.clone()).collect();
    sent.sort();
    assert_eq!(sent, [vec![0, 2, 4], vec![1, 3, 5], vec![6], vec![7]]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_hangs_keeps_the_others_from_nothing() {
    let service = BatchLayer::new(Apart).layer(service_fn(|numbers: Vec<u64>| async move {
        if numbers.contains(&1) {
            std::future::pending::<()>().await;
        }
        let names = numbers.into_iter().map(|n| (n, n.to_string()));
        Ok::<BTreeMap<_, _>, BoxError>(names.collect())
    }));
    let mut hangs = spawn(service.clone().oneshot(1));
    assert!(hangs.poll().is_pending());
    tokio::time::advance(ms(11)).await;
    assert!(hangs.poll().is_pending());
    for n in [2, 4, 3] {
        assert_eq!(service.clone().oneshot(n).await.unwrap(), n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_once_the_batch_is_sent_begins_another() {
    let (names, sent) = names();
    let service = batches().layer(names);
    let first = tokio::spawn(service.clone().oneshot(1));
    clock::sleep(ms(20)).await;
    service.oneshot(2).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_element_missing_in_the_answer_is_an_error_for_its_caller_alone() {
    let log = Log::default();
    let (names, _) = names();
    let layer = BatchLayer::new(Numbers { odd: false })
        .name("names")
        .observe(log.clone());
    let service = layer.layer(names);
    let calls = [1, 2, 4].map(|n| service.clone().oneshot(n));
    let mut answers = futures_util::future::join_all(calls).await.into_iter();
    let missing = answers.next().unwrap().unwrap_err();
    assert_eq!(reason(&missing), Some(Reason::NotInAnswer));
    assert!(!was_never_sent(&missing), "the peer answered");
    assert!(answers.all(|answer| answer.is_ok()));
    let told = "batch `names`: the answer lacks this element";
    assert_eq!(*log.0.lock().unwrap(), [told]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_too_few_or_too_many_elements_harms_nobody_else() {
    struct Count(usize);
    impl Batch for Count {
        type Request = u64;
        type Response = usize;
        type Merged = ();
        type Answer = ();
        fn merge(&self, _: &[u64]) {}
        fn split(&self, (): (), _: &[u64]) -> Vec<Option<usize>> {
            (0..self.0).map(Some).collect()
        }
    }
    for (elements, expected) in [(1, [Some(0), None]), (3, [Some(0), Some(1)])] {
        let service = BatchLayer::new(Count(elements))
            .layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
        let calls = [7, 8].map(|n| service.clone().oneshot(n));
        let answers = futures_util::future::join_all(calls).await;
        let answers: Vec<_> = answers.into_iter().map(Result::ok).collect();
        assert_eq!(answers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_batch_goes_to_all_its_callers_with_its_causes() {
    let (names, sent) = names();
    let service = batches().layer(names);
    let calls = [1, 500, 2].map(|n| service.clone().oneshot(n));
    for answer in futures_util::future::join_all(calls).await {
        assert!(has::<Root>(&answer.unwrap_err()));
    }
    assert_eq!(sent.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_cancelled_in_the_window_leave_the_batch() {
    let (names, sent) = names();
    let service = batches().layer(names);
    let mut callers: Vec<_> = (0..4).map(|n| spawn(service.clone().oneshot(n))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    tokio::time::advance(ms(5)).await;
    // The one who polls it, and one of the others.
    drop(callers.remove(2));
    drop(callers.remove(0));
    for caller in callers {
        caller.await.unwrap();
    }
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, [1, 3]);
    assert!((10..=11).contains(&sent[0].0), "the window began again");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_all_have_left_is_never_sent() {
    let (names, sent) = names();
    let service = batches().layer(names);
    let calls = [1, 2].map(|n| tokio::time::timeout(ms(5), service.clone().oneshot(n)));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_err));
    clock::sleep(ms(100)).await;
    assert!(sent.lock().unwrap().is_empty());
    service.oneshot(3).await.unwrap();
    assert_eq!(sent.lock().unwrap()[0].1, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_leaves_at_its_deadline_in_the_window_and_after_it() {
    for (limit, batch) in [(5, vec![2]), (30, vec![1, 2])] {
        let (names, sent) = names();
        let service = batches().layer(names);
        let start = clock::now();
        let hasty = async {
            let call = service.clone().oneshot(1);
            let result = Deadline::within(ms(limit)).scope(call).await;
            assert!(clock::now() - start <= ms(limit + 2));
            result
        };
        let (hasty, patient) = tokio::join!(hasty, service.clone().oneshot(2));
        assert_eq!(reason(&hasty.unwrap_err()), Some(Reason::DeadlineExceeded));
        assert_eq!(patient.unwrap(), "number 2");
        assert_eq!(sent.lock().unwrap()[0].1, batch);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_batch_is_told_to_its_other_callers() {
    let (names, _) = names();
    let service = batches().layer(names);
    let first = tokio::spawn(service.clone().oneshot(666));
    let second = tokio::spawn(service.clone().oneshot(2));
    assert!(first.await.unwrap_err().is_panic());
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(reason(&error), Some(Reason::Panicked));
    assert!(!was_never_sent(&error), "the peer saw the call");
    service.oneshot(3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_readiness_once_it_is_sent() {
    let (mock, mut handle) = tower_test::mock::pair::<Vec<u64>, BTreeMap<u64, String>>();
    let service = batches().size(2).layer(mock);
    let calls = [1, 2].map(|n| tokio::spawn(service.clone().oneshot(n)));
    handle.allow(1);
    let (batch, respond) = handle.next_request().await.unwrap();
    assert_eq!(batch, [1, 2]);
    respond.send_response(BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]));
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_batches_that_come_and_go_on_many_threads_get_their_own() {
    struct Echo;
    impl Batch for Echo {
        type Request = u64;
        type Response = u64;
        type Merged = Vec<u64>;
        type Answer = Vec<u64>;
        fn merge(&self, requests: &[u64]) -> Vec<u64> {
            requests.to_vec()
        }
        fn split(&self, answer: Vec<u64>, _: &[u64]) -> Vec<Option<u64>> {
            answer.into_iter().map(Some).collect()
        }
    }
    let layer = BatchLayer::new(Echo).size(5).window(ms(1));
    let service = layer.layer(service_fn(|batch: Vec<u64>| async move {
        assert!(!batch.is_empty() && batch.len() <= 5);
        tokio::task::yield_now().await;
        Ok::<_, Rejected>(batch)
    }));
    let callers: Vec<_> = (0..4000_u64)
        .map(|n| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut call = pin!(service.oneshot(n));
                if n % 3 == 0 {
                    let _ = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                    return;
                }
                assert_eq!(call.await.unwrap(), n);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_batch_keeps_the_next_from_nothing() {
    let calls = AtomicU32::new(0);
    let service = batches().size(1).layer(service_fn(|numbers: Vec<u64>| {
        let first = calls.fetch_add(1, Relaxed) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(numbers.into_iter().map(|n| (n, n.to_string())).collect())
        }
    }));
    let mut hanging = spawn(service.clone().oneshot(1));
    assert!(hanging.poll().is_pending());
    assert_eq!(service.clone().oneshot(2).await.unwrap(), "2");
}

#[test]
#[should_panic(expected = "never sent")]
fn a_batch_of_no_calls_is_refused() {
    let _ = batches().size(0);
}
