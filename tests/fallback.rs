//! When a fallback answers, with what, and what it keeps of the request.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::BoxError;
use buttress::error::{Reason, Rejected};
use buttress::layers::fallback::FallbackLayer;
use buttress::observe::{Event, Observe};
use futures_util::FutureExt;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// Fails for the requests above 100, and is refused those above 1000.
async fn small_only(request: u32) -> Result<u32, BoxError> {
    match request {
        0..=100 => Ok(request),
        101..=1000 => Err("too much".into()),
        _ => Err(Rejected::new("circuit breaker", Reason::Open).into()),
    }
}

#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl Observe for Names {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::FellBack { fallback } = event {
            self.0.lock().unwrap().push((*fallback).to_owned());
        }
    }
}

#[tokio::test]
async fn a_value_answers_errors_and_refusals_and_leaves_successes_alone() {
    let service = FallbackLayer::value(7).layer(service_fn(small_only));
    for (request, answer) in [(1, 1), (100, 100), (101, 7), (1001, 7)] {
        assert_eq!(service.clone().oneshot(request).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn a_function_sees_the_failure_and_may_return_it() {
    let layer = FallbackLayer::from_fn(|failed: Result<u32, BoxError>| match &failed {
        Err(error) if Rejected::find(&**error).is_some_and(Rejected::is_open) => Ok(0),
        _ => failed,
    });
    let service = layer.layer(service_fn(small_only));
    assert_eq!(service.clone().oneshot(1001).await.unwrap(), 0);
    let error = service.oneshot(101).await.unwrap_err();
    assert_eq!(error.to_string(), "too much");
}

#[tokio::test]
async fn a_function_of_the_request_gets_what_was_kept_of_it() {
    let layer = FallbackLayer::from_request(
        |request: &u32| request % 10,
        |digit, _: Result<u32, BoxError>| Ok(digit),
    );
    let service = layer.layer(service_fn(small_only));
    assert_eq!(service.clone().oneshot(42).await.unwrap(), 42);
    assert_eq!(service.oneshot(142).await.unwrap(), 2);
}

#[tokio::test]
async fn another_service_answers_and_its_error_is_the_callers() {
    let replica = service_fn(|request: u32| async move {
        match request {
            999 => Err(BoxError::from("replica is down")),
            _ => Ok(request + 1),
        }
    });
    let service = FallbackLayer::service(u32::clone, replica).layer(service_fn(small_only));
    assert_eq!(service.clone().oneshot(5).await.unwrap(), 5);
    assert_eq!(service.clone().oneshot(500).await.unwrap(), 501);
    let error = service.oneshot(999).await.unwrap_err();
    assert_eq!(error.to_string(), "replica is down");
}

#[tokio::test]
async fn another_service_is_waited_for_until_it_is_ready_and_only_asked_when_needed() {
    let (replica, mut handle) = tower_test::mock::pair::<u32, u32>();
    handle.allow(0);
    let service = FallbackLayer::service(u32::clone, replica).layer(service_fn(small_only));
    assert_eq!(service.clone().oneshot(5).await.unwrap(), 5);

    let mut call = tokio_test::task::spawn(service.oneshot(500));
    assert!(call.poll().is_pending());
    handle.allow(1);
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    let (request, respond) = handle.next_request().await.unwrap();
    respond.send_response(request * 2);
    assert_eq!(call.await.unwrap(), 1000);
}

#[tokio::test]
async fn a_predicate_chooses_among_errors_and_responses() {
    let layer = FallbackLayer::value(0).when(|result: Result<&u32, &BoxError>| match result {
        Ok(status) => *status == 53,
        Err(error) => Rejected::find(&**error).is_some(),
    });
    let service = layer.layer(service_fn(small_only));
    let answers = [(53, Some(0)), (54, Some(54)), (101, None), (1001, Some(0))];
    for (request, answer) in answers {
        assert_eq!(service.clone().oneshot(request).await.ok(), answer);
    }
}

#[tokio::test]
async fn stacked_fallbacks_answer_from_the_inside_out() {
    let names = Names::default();
    let service = ServiceBuilder::new()
        .layer(FallbackLayer::value(0).name("last").observe(names.clone()))
        .layer(
            FallbackLayer::service(u32::clone, service_fn(small_replica))
                .name("replica")
                .observe(names.clone()),
        )
        .service_fn(small_only);
    assert_eq!(service.clone().oneshot(50).await.unwrap(), 50);
    assert_eq!(service.clone().oneshot(150).await.unwrap(), 151);
    assert_eq!(service.oneshot(500).await.unwrap(), 0);
    // A fallback that fails as well has not answered.
    assert_eq!(*names.0.lock().unwrap(), ["replica", "last"]);
}

async fn small_replica(request: u32) -> Result<u32, BoxError> {
    small_only(request - 99).await.map(|answer| answer + 100)
}

/// Counts its clones.
struct Counted(Arc<AtomicU32>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Relaxed);
        Self(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn no_request_is_cloned_unless_the_copy_is_asked_for() {
    let clones = Arc::new(AtomicU32::new(0));
    let fails = service_fn(|_: Counted| async { Err::<u32, _>(BoxError::from("reset")) });
    let works = service_fn(|_: Counted| async { Ok::<_, BoxError>(1) });
    let request = || Counted(Arc::clone(&clones));

    let value = FallbackLayer::value(7);
    assert_eq!(value.layer(works).oneshot(request()).await.unwrap(), 1);
    assert_eq!(value.layer(fails).oneshot(request()).await.unwrap(), 7);
    let from_fn = FallbackLayer::from_fn(|_: Result<u32, BoxError>| Ok(8));
    assert_eq!(from_fn.layer(fails).oneshot(request()).await.unwrap(), 8);
    assert_eq!(clones.load(Relaxed), 0);

    let replica = FallbackLayer::service(Counted::clone, works);
    assert_eq!(replica.layer(fails).oneshot(request()).await.unwrap(), 1);
    assert_eq!(clones.load(Relaxed), 1);
}

#[tokio::test]
async fn a_request_need_not_be_clone_for_another_service_to_answer() {
    struct Upload(Vec<u8>);
    let fails = service_fn(|upload: Upload| async move {
        Err::<usize, _>(BoxError::from(format!(
            "{} bytes are too many",
            upload.0.len()
        )))
    });
    let sizes = service_fn(|size: usize| async move { Ok::<_, BoxError>(size) });
    let layer = FallbackLayer::service(|upload: &Upload| upload.0.len(), sizes);
    assert_eq!(
        layer
            .layer(fails)
            .oneshot(Upload(vec![0; 9]))
            .await
            .unwrap(),
        9
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_the_fallback_under_way() {
    let answered = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&answered);
    let slow = service_fn(move |_: u32| {
        let seen = Arc::clone(&seen);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen.fetch_add(1, Relaxed);
            Ok::<_, BoxError>(0)
        }
    });
    let mut service = FallbackLayer::service(u32::clone, slow).layer(service_fn(small_only));
    let call = service.ready().await.unwrap().call(500);
    tokio::time::timeout(Duration::from_millis(500), call)
        .await
        .unwrap_err();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(answered.load(Relaxed), 0);
}

/// Its readiness fails so many times, and then it works.
#[derive(Clone)]
struct Unready(u32);

impl Service<u32> for Unready {
    type Response = u32;
    type Error = BoxError;
    type Future = std::future::Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0 == 0 {
            return Poll::Ready(Ok(()));
        }
        self.0 -= 1;
        Poll::Ready(Err("not connected".into()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert_eq!(self.0, 0, "called though it was not ready");
        std::future::ready(Ok(request))
    }
}

#[tokio::test]
async fn a_failure_of_readiness_is_answered_as_one_of_the_call_whatever_answers() {
    async fn answers<S>(mut service: S) -> [u32; 2]
    where
        S: Service<u32, Response = u32, Error = BoxError>,
    {
        let first = service.ready().await.unwrap().call(500).await.unwrap();
        let second = service.ready().await.unwrap().call(500).await.unwrap();
        [first, second]
    }
    let value = FallbackLayer::value(7);
    assert_eq!(answers(value.layer(Unready(1))).await, [7, 500]);
    let from_fn = FallbackLayer::from_fn(|failed: Result<u32, BoxError>| {
        assert_eq!(failed.unwrap_err().to_string(), "not connected");
        Ok(8)
    });
    assert_eq!(answers(from_fn.layer(Unready(1))).await, [8, 500]);
    let from_request = FallbackLayer::from_request(
        |request: &u32| request + 1,
        |kept, _: Result<u32, BoxError>| Ok(kept),
    );
    assert_eq!(answers(from_request.layer(Unready(1))).await, [501, 500]);
    let replica = service_fn(|request: u32| async move { Ok::<_, BoxError>(request + 2) });
    let other = FallbackLayer::service(u32::clone, replica);
    assert_eq!(answers(other.layer(Unready(1))).await, [502, 500]);
    let chain = ServiceBuilder::new()
        .layer(FallbackLayer::value(9))
        .layer(FallbackLayer::from_fn(|failed: Result<u32, BoxError>| {
            failed
        }));
    assert_eq!(answers(chain.service(Unready(1))).await, [9, 500]);
}

#[tokio::test]
async fn a_failure_of_readiness_that_wants_no_answer_is_the_error_of_its_call() {
    let refusals = |result: Result<&u32, &BoxError>| {
        result.is_err_and(|error| Rejected::find(&**error).is_some())
    };
    let mut service = FallbackLayer::value(7).when(refusals).layer(Unready(1));
    let error = service.ready().await.unwrap().call(500).await.unwrap_err();
    assert_eq!(error.to_string(), "not connected");
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), 1);
}

#[tokio::test]
async fn ready_clones_that_idle_hold_no_slot_inside() {
    let limited = tower::limit::ConcurrencyLimit::new(service_fn(small_only), 1);
    let service = FallbackLayer::value(7).layer(limited);
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    let answer = service.oneshot(5).now_or_never();
    assert_eq!(answer.unwrap().unwrap(), 5);
}

#[tokio::test]
async fn another_service_that_is_never_ready_blocks_no_call_that_works() {
    let (replica, mut handle) = tower_test::mock::pair::<u32, u32>();
    handle.allow(0);
    let service = FallbackLayer::service(u32::clone, replica).layer(service_fn(small_only));
    let mut stuck = tokio_test::task::spawn(service.clone().oneshot(500));
    assert!(stuck.poll().is_pending());
    for request in 0..100 {
        let answer = service.clone().oneshot(request).now_or_never();
        assert_eq!(answer.unwrap().unwrap(), request);
    }
}

#[tokio::test]
async fn ten_clones_that_wait_for_readiness_are_all_woken_and_all_finish() {
    let (inner, mut handle) = tower_test::mock::pair::<u32, u32>();
    handle.allow(0);
    let service = FallbackLayer::value(7).layer(inner);
    let calls: Vec<_> = (0..10)
        .map(|request| tokio::spawn(service.clone().oneshot(request)))
        .collect();
    tokio::task::yield_now().await;
    handle.allow(10);
    for _ in 0..10 {
        let (request, respond) = handle.next_request().await.unwrap();
        respond.send_response(request);
    }
    for (call, request) in calls.into_iter().zip(0..) {
        assert_eq!(call.await.unwrap().unwrap(), request);
    }
}

#[tokio::test]
async fn what_is_handed_back_as_it_was_is_not_told_as_an_answer() {
    let names = Names::default();
    let layer = FallbackLayer::from_fn(|failed: Result<u32, BoxError>| failed)
        .when(|result: Result<&u32, &BoxError>| matches!(result, Ok(53) | Err(_)))
        .observe(names.clone());
    let service = layer.layer(service_fn(small_only));
    assert_eq!(service.clone().oneshot(53).await.unwrap(), 53);
    service.oneshot(500).await.unwrap_err();
    assert!(names.0.lock().unwrap().is_empty());
}
