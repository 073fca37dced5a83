//! What the last good answer remembers, for how long, of whom, and what it costs.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use buttress::clock;
use buttress::error::{Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::fallback::{FallbackLayer, LastGood};
use buttress::layers::timeout::TimeoutLayer;
use buttress::{BoxError, Deadline};
use futures_util::FutureExt;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A peer that answers each question with a number of its own, until it is taken down.
#[derive(Clone, Default)]
struct Peer {
    is_down: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Peer {
    fn service(
        &self,
    ) -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone + Send + 'static
    {
        let peer = self.clone();
        service_fn(move |_: u64| {
            let answer = match peer.is_down.load(Relaxed) {
                true => Err("connection refused".into()),
                false => Ok(peer.answers.fetch_add(1, Relaxed)),
            };
            async { answer }
        })
    }

    fn goes_down(&self) {
        self.is_down.store(true, Relaxed);
    }
}

fn last() -> LastGood<u64, u64, u64> {
    LastGood::new(|key: &u64| Some(*key))
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_gets_the_last_good_answer_to_its_own_key() {
    let peer = Peer::default();
    let service = last().layer().layer(peer.service());
    for (key, answer) in [(7, 0), (8, 1), (7, 2)] {
        assert_eq!(service.clone().oneshot(key).await.unwrap(), answer);
    }
    peer.goes_down();
    for (key, answer) in [(7, 2), (8, 1), (7, 2)] {
        assert_eq!(service.clone().oneshot(key).await.unwrap(), answer);
    }
    let error = service.oneshot(9).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gets_the_last_good_answer_too() {
    let bulkhead = Bulkhead::new("prices", 1);
    let service = ServiceBuilder::new()
        .layer(last().layer())
        .layer(bulkhead.layer())
        .service(Peer::default().service());
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    let _slot = bulkhead.acquire().await.unwrap();
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    let error = service.oneshot(8).await.unwrap_err();
    assert!(Rejected::find(&*error).unwrap().is_full());
}

#[tokio::test(start_paused = true)]
async fn a_copy_older_than_its_bound_is_never_served() {
    let peer = Peer::default();
    let service = last().max_age(s(60)).layer().layer(peer.service());
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    peer.goes_down();
    tokio::time::advance(s(60)).await;
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    service.oneshot(7).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_marked_with_its_age_and_a_fresh_one_is_not() {
    let peer = Peer::default();
    let last = last().mark(|answer, age| answer + 1000 * age.as_secs());
    let service = last.layer().layer(peer.service());
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 1);
    peer.goes_down();
    tokio::time::advance(s(42)).await;
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 42_001);
    // What was marked is not what is kept.
    assert_eq!(service.oneshot(7).await.unwrap(), 42_001);
}

#[tokio::test(start_paused = true)]
async fn memory_stays_within_its_bounds_whatever_keys_come() {
    for keys in [1, 3, 500, 5000] {
        let last = last().max_keys(keys);
        let service = last.layer().layer(Peer::default().service());
        for key in 0..2 * keys as u64 {
            service.clone().oneshot(key).await.unwrap();
            assert!(last.len() <= keys);
        }
        // Parts that chance has filled are full before the whole is.
        assert!(last.len() * 10 >= keys * 8, "{} of {keys}", last.len());
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_weight_and_what_is_too_heavy_alone_is_not_kept() {
    let peer = Peer::default();
    // A key weighs what it says.
    let last = last().max_keys(9).max_weight(100, |key, _| *key);
    let service = last.layer().layer(peer.service());
    for (key, weight) in [(40, 40), (50, 90), (60, 60), (101, 60), (30, 90)] {
        service.clone().oneshot(key).await.unwrap();
        assert_eq!(last.weight(), weight, "after {key}");
    }
    peer.goes_down();
    for (key, is_kept) in [
        (40, false),
        (50, false),
        (60, true),
        (101, false),
        (30, true),
    ] {
        assert_eq!(service.clone().oneshot(key).await.is_ok(), is_kept, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_that_was_made_longest_ago_makes_room() {
    let peer = Peer::default();
    let service = last().max_keys(2).layer().layer(peer.service());
    for key in [1, 2, 1, 3] {
        service.clone().oneshot(key).await.unwrap();
    }
    peer.goes_down();
    for (key, is_kept) in [(1, true), (2, false), (3, true)] {
        assert_eq!(service.clone().oneshot(key).await.is_ok(), is_kept, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_key_is_neither_remembered_nor_answered() {
    let peer = Peer::default();
    let reads = LastGood::new(|key: &u64| (*key < 100).then_some(*key));
    let service = reads.layer().layer(peer.service());
    service.clone().oneshot(7).await.unwrap();
    service.clone().oneshot(100).await.unwrap();
    assert_eq!(reads.len(), 1);
    peer.goes_down();
    service.clone().oneshot(7).await.unwrap();
    service.oneshot(100).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_response_that_wants_an_answer_itself_is_not_remembered() {
    let answers = Arc::new(AtomicU64::new(200));
    let peer = Arc::clone(&answers);
    let service = service_fn(move |_: u64| {
        let status = peer.load(Relaxed);
        async move { Ok::<_, BoxError>(status) }
    });
    let is_bad = |result: Result<&u64, &BoxError>| !matches!(result, Ok(0..500));
    let service = last().layer().when(is_bad).layer(service);
    for (status, seen) in [(503, 503), (200, 200), (503, 200), (404, 404), (500, 404)] {
        answers.store(status, Relaxed);
        assert_eq!(service.clone().oneshot(7).await.unwrap(), seen);
    }
}

/// Cannot be cloned, and some are not for keeping.
#[derive(Debug)]
struct Page {
    body: String,
    is_private: bool,
}

#[tokio::test(start_paused = true)]
async fn a_response_need_not_be_clone_and_may_be_left_out() {
    let is_down = Arc::new(AtomicBool::new(false));
    let peer = Arc::clone(&is_down);
    let service = service_fn(move |key: u64| {
        let answer = match peer.load(Relaxed) {
            true => Err(BoxError::from("reset")),
            false => Ok(Page {
                body: format!("page {key}"),
                is_private: key > 9,
            }),
        };
        async { answer }
    });
    let copy = |page: &Page| {
        (!page.is_private).then(|| Page {
            body: page.body.clone(),
            ..*page
        })
    };
    let last = LastGood::with_copy(|key: &u64| Some(*key), copy);
    let service = last.layer().layer(service);
    service.clone().oneshot(7).await.unwrap();
    service.clone().oneshot(10).await.unwrap();
    is_down.store(true, Relaxed);
    assert_eq!(service.clone().oneshot(7).await.unwrap().body, "page 7");
    service.oneshot(10).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn copies_that_are_dear_are_made_no_more_often_than_asked_for() {
    let copies = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&copies);
    let copy = move |answer: &u64| {
        count.fetch_add(1, Relaxed);
        Some(*answer)
    };
    let peer = Peer::default();
    let last = LastGood::with_copy(|key: &u64| Some(*key), copy).copy_every(s(10));
    let service = last.layer().layer(peer.service());
    for _ in 0..30 {
        service.clone().oneshot(7).await.unwrap();
        tokio::time::advance(s(1)).await;
    }
    assert_eq!(copies.load(Relaxed), 3);
    peer.goes_down();
    assert_eq!(service.oneshot(7).await.unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_not_served() {
    let peer = Peer::default();
    let last = last();
    let service = last.layer().layer(peer.service());
    service.clone().oneshot(7).await.unwrap();
    peer.goes_down();
    last.forget(&7);
    assert!(last.is_empty());
    service.oneshot(7).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_handle_share_what_they_remember() {
    let peer = Peer::default();
    let last = last();
    let first = last.layer().layer(peer.service());
    let second = last.clone().layer().layer(peer.service());
    first.oneshot(7).await.unwrap();
    peer.goes_down();
    assert_eq!(second.clone().oneshot(7).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chain_gives_the_last_good_answer_while_there_is_one_and_then_the_value() {
    let peer = Peer::default();
    let service = ServiceBuilder::new()
        .layer(FallbackLayer::value(404))
        .layer(last().max_age(s(60)).layer())
        .service(peer.service());
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    peer.goes_down();
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 0);
    assert_eq!(service.clone().oneshot(8).await.unwrap(), 404);
    tokio::time::advance(s(61)).await;
    assert_eq!(service.oneshot(7).await.unwrap(), 404);
}

/// Answers once; then its readiness fails, or never comes.
#[derive(Clone)]
struct Once {
    calls: u32,
    hangs: bool,
}

impl Service<u64> for Once {
    type Response = u64;
    type Error = BoxError;
    type Future = std::future::Ready<Result<u64, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        match (self.calls, self.hangs) {
            (0, _) => std::task::Poll::Ready(Ok(())),
            (_, true) => std::task::Poll::Pending,
            (_, false) => std::task::Poll::Ready(Err("connection lost".into())),
        }
    }

    fn call(&mut self, _: u64) -> Self::Future {
        self.calls += 1;
        assert_eq!(self.calls, 1, "called though it was not ready");
        std::future::ready(Ok(350))
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_needs_no_service_that_is_ready() {
    let once = Once {
        calls: 0,
        hangs: false,
    };
    let mut service = last().layer().layer(once);
    for _ in 0..3 {
        let ready = service.ready().await.unwrap();
        assert_eq!(ready.call(7).await.unwrap(), 350);
    }
    let error = service.ready().await.unwrap().call(8).await.unwrap_err();
    assert_eq!(error.to_string(), "connection lost");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_gets_ready_is_answered_for_once_a_timeout_inside_covers_the_wait() {
    let once = Once {
        calls: 0,
        hangs: true,
    };
    let mut service = ServiceBuilder::new()
        .layer(last().layer())
        .layer(TimeoutLayer::new(s(1)).cover_readiness())
        .service(once);
    assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 350);
    let before = clock::now();
    assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 350);
    assert_eq!((clock::now() - before).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_gets_the_last_good_answer_with_no_time_lost() {
    let peer = Peer::default();
    let service = ServiceBuilder::new()
        .layer(last().layer())
        .layer(TimeoutLayer::new(s(60)))
        .service(peer.service());
    service.clone().oneshot(7).await.unwrap();
    let passed = Deadline::at(clock::now());
    let late = passed.scope(service.oneshot(7));
    assert_eq!(late.now_or_never().unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_not_remembered() {
    let slow = service_fn(|_: u64| async {
        clock::sleep(s(1)).await;
        Ok::<_, BoxError>(1)
    });
    let last = last();
    let service = last.layer().layer(slow);
    let call = tokio::time::timeout(Duration::from_millis(500), service.oneshot(7));
    call.await.unwrap_err();
    assert!(last.is_empty());
}

/// A copy runs outside of every lock: it may look at what is remembered.
#[tokio::test(start_paused = true)]
async fn a_copy_may_read_what_is_remembered() {
    type Handle = LastGood<u64, u64, u64>;
    let handle = Arc::new(std::sync::OnceLock::<Handle>::new());
    let seen = Arc::clone(&handle);
    let copy = move |answer: &u64| {
        let _ = seen.get().map(LastGood::len);
        Some(*answer)
    };
    let last = LastGood::with_copy(|key: &u64| Some(*key), copy);
    let _ = handle.set(last.clone());
    let peer = Peer::default();
    let service = last.layer().layer(peer.service());
    service.clone().oneshot(7).await.unwrap();
    peer.goes_down();
    service.oneshot(7).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bounds_hold_and_no_answer_is_anothers_when_threads_meet() {
    let last = LastGood::new(|key: &u64| Some(*key)).max_keys(300);
    // Even calls fail, and an answer is its key and a number.
    let calls = Arc::new(AtomicU64::new(0));
    let service = last.layer().layer(service_fn(move |key: u64| {
        let call = calls.fetch_add(1, Relaxed);
        async move {
            match call % 2 {
                0 => Err(BoxError::from(Rejected::new("test", Reason::Open))),
                _ => Ok(key * 1_000_000 + call),
            }
        }
    }));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (service, last) = (service.clone(), last.clone());
            tokio::spawn(async move {
                for i in 0..2000 {
                    let key = (i * 7 + task) % 500;
                    if let Ok(answer) = service.clone().oneshot(key).await {
                        assert_eq!(answer / 1_000_000, key);
                    }
                    assert!(last.len() <= 300);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
