//! When a call is given up, what the caller is told, and what the service inside sees.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::algo::backoff::Backoff;
use buttress::error::{Reason, Rejected};
use buttress::layers::bulkhead::Bulkhead;
use buttress::layers::retry::RetryLayer;
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Deadline, clock};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const LIMIT: Duration = Duration::from_millis(300);

const TIMED_OUT: Reason = Reason::TimedOut { after: LIMIT };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn reason(error: &BoxError) -> Reason {
    Rejected::find(&**error).expect("a refusal").reason()
}

async fn takes(wait: Duration) -> Result<&'static str, BoxError> {
    clock::sleep(wait).await;
    Ok("answer")
}

#[tokio::test(start_paused = true)]
async fn a_call_is_given_up_after_the_limit_and_says_which() {
    let start = clock::now();
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(takes));
    assert_eq!(service.clone().oneshot(ms(299)).await.unwrap(), "answer");
    assert_eq!(clock::now() - start, ms(299));

    let error = service.oneshot(ms(5000)).await.unwrap_err();
    assert_eq!(reason(&error), TIMED_OUT);
    assert_eq!(clock::now() - start, ms(599));
    assert_eq!(error.to_string(), "timeout gave up after 300ms");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_when_the_limit_is_reached_wins() {
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(takes));
    assert_eq!(service.oneshot(LIMIT).await.unwrap(), "answer");
    let service = TimeoutLayer::new(Duration::ZERO).layer(service_fn(takes));
    assert_eq!(service.oneshot(Duration::ZERO).await.unwrap(), "answer");
}

#[tokio::test(start_paused = true)]
async fn an_endless_limit_is_no_panic() {
    let service = TimeoutLayer::new(Duration::MAX).layer(service_fn(takes));
    assert_eq!(service.oneshot(ms(86_400_000)).await.unwrap(), "answer");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_passed_on() {
    let fails = service_fn(|()| async { Err::<(), _>(BoxError::from("reset")) });
    let error = TimeoutLayer::new(LIMIT).layer(fails).oneshot(()).await;
    assert_eq!(error.unwrap_err().to_string(), "reset");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_panic_and_not_a_timeout() {
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(|()| async {
        clock::sleep(ms(10)).await;
        if true {
            panic!("a bug");
        }
        Ok::<_, BoxError>(())
    }));
    let task = tokio::spawn(service.oneshot(()));
    let panic = task.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"a bug"));
}

#[tokio::test(start_paused = true)]
async fn the_inner_future_is_dropped_when_it_is_given_up() {
    struct Held(Arc<AtomicBool>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(|held: Held| async move {
        pending::<()>().await;
        drop(held);
        Ok::<_, BoxError>(())
    }));
    let mut call = tokio_test::task::spawn(service.oneshot(Held(Arc::clone(&dropped))));
    assert!(call.poll().is_pending());
    assert!(!dropped.load(Relaxed));
    tokio::time::advance(ms(301)).await;
    assert!(call.poll().is_ready());
    // The caller still holds the future of the call.
    assert!(dropped.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_uses_up_the_budget_of_its_task_is_given_up_too() {
    let end = clock::after(clock::now(), ms(1000));
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(|()| async move {
        while clock::now() < end {
            tokio::task::consume_budget().await;
        }
        Ok::<_, BoxError>(())
    }));
    let clock = tokio::spawn(async {
        loop {
            tokio::time::advance(ms(10)).await;
        }
    });
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(reason(&error), TIMED_OUT);
    clock.abort();
}

// The limit of a request.

/// A request that says how long it takes, and how long it may.
#[derive(Clone, Copy)]
struct Job {
    takes: u64,
    may: Option<u64>,
}

fn job(takes: u64, may: Option<u64>) -> Job {
    Job { takes, may }
}

fn may(job: &Job) -> Option<Duration> {
    job.may.map(ms)
}

#[tokio::test(start_paused = true)]
async fn a_request_may_say_its_own_limit_and_has_the_layers_if_it_does_not() {
    let service = TimeoutLayer::new(LIMIT)
        .by(may)
        .layer(service_fn(|job: Job| takes(ms(job.takes))));
    // Takes, may, given up after.
    let table = [
        (299, None, None),
        (5000, None, Some(300)),
        (99, Some(100), None),
        (5000, Some(100), Some(100)),
        (899, Some(900), None),
        (5000, Some(900), Some(900)),
        (0, Some(0), None),
        (1, Some(0), Some(0)),
        (86_400_000, Some(u64::MAX), None),
    ];
    for (takes, may, given_up) in table {
        let start = clock::now();
        let result = service.clone().oneshot(job(takes, may)).await;
        let reason = result.err().map(|error| reason(&error));
        let expected = given_up.map(|after| Reason::TimedOut { after: ms(after) });
        assert_eq!(reason, expected);
        assert_eq!(clock::now() - start, ms(given_up.unwrap_or(takes)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_take_longer_does_not_outlast_the_deadline() {
    let service = TimeoutLayer::new(LIMIT)
        .by(may)
        .layer(service_fn(|job: Job| takes(ms(job.takes))));
    let call = service.oneshot(job(5000, Some(900)));
    let error = Deadline::within(ms(100)).scope(call).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn attempts_and_the_whole_call_have_limits_of_their_own() {
    let start = clock::now();
    let attempts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&attempts);
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(ms(1000)))
        .layer(RetryLayer::new(100).backoff(Backoff::constant(Duration::ZERO)))
        .layer(TimeoutLayer::new(LIMIT))
        .service_fn(move |()| {
            seen.fetch_add(1, Relaxed);
            pending::<Result<(), BoxError>>()
        });
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(reason(&error), Reason::TimedOut { after: ms(1000) });
    assert_eq!(clock::now() - start, ms(1000));
    assert_eq!(attempts.load(Relaxed), 4, "each has 300 ms");
}

#[tokio::test(start_paused = true)]
async fn the_slot_of_a_call_that_is_given_up_is_free_again() {
    let bulkhead = Bulkhead::new("orders", 1);
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(LIMIT))
        .layer(bulkhead.layer())
        .service_fn(|()| pending::<Result<(), BoxError>>());
    for _ in 0..2 {
        let mut service = service.clone();
        let call = service.ready().await.unwrap().call(());
        assert_eq!(reason(&call.await.unwrap_err()), TIMED_OUT);
        assert_eq!(bulkhead.in_flight(), 0);
    }
}

// The deadline.

async fn sees((): ()) -> Result<Duration, BoxError> {
    let deadline = Deadline::current().expect("a deadline");
    Ok(deadline.remaining(clock::now()))
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_the_deadline_of_everything_inside() {
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(|()| {
        // In `call` and when polled.
        let in_call = Deadline::current();
        async move {
            clock::sleep(ms(100)).await;
            assert_eq!(in_call, Deadline::current());
            sees(()).await
        }
    }));
    assert_eq!(service.oneshot(()).await.unwrap(), ms(200));
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn an_inner_deadline_is_never_later_than_the_outer() {
    for (outer, inner) in [(100, 300), (300, 100), (200, 200)] {
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::new(ms(outer)))
            .layer(TimeoutLayer::new(ms(inner)))
            .service_fn(sees);
        assert_eq!(service.oneshot(()).await.unwrap(), ms(outer.min(inner)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_given_up_at_the_deadline_if_that_is_before_the_limit() {
    let start = clock::now();
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(takes));
    let call = service.clone().oneshot(ms(5000));
    let error = Deadline::within(ms(100)).scope(call).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(clock::now() - start, ms(100));

    let call = service.oneshot(ms(5000));
    let error = Deadline::within(ms(900)).scope(call).await.unwrap_err();
    assert_eq!(reason(&error), TIMED_OUT);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_around_the_future_alone_ends_the_call_too() {
    let start = clock::now();
    let mut service = TimeoutLayer::new(LIMIT).layer(service_fn(takes));
    let call = service.call(ms(5000));
    let error = Deadline::within(ms(100)).scope(call).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(clock::now() - start, ms(100));

    // It comes into force when the call is under way already.
    let mut call = tokio_test::task::spawn(service.call(ms(5000)));
    assert!(call.poll().is_pending());
    let error = Deadline::within(ms(200)).scope(call).await.unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(clock::now() - start, ms(300));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_made() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let service = TimeoutLayer::new(LIMIT).layer(service_fn(move |()| {
        seen.fetch_add(1, Relaxed);
        async { Ok::<_, BoxError>(()) }
    }));
    let call = service.oneshot(());
    let error = Deadline::within(Duration::ZERO).scope(call).await;
    assert_eq!(reason(&error.unwrap_err()), Reason::DeadlineExceeded);
    assert_eq!(calls.load(Relaxed), 0);
}

// Readiness.

/// Ready after a while, then answers after a while.
#[derive(Clone)]
struct Slow {
    ready_at: std::time::Instant,
    answers_after: Duration,
}

impl Slow {
    fn new(ready_after: Duration, answers_after: Duration) -> Self {
        Self {
            ready_at: clock::after(clock::now(), ready_after),
            answers_after,
        }
    }
}

impl Service<()> for Slow {
    type Response = &'static str;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if clock::now() >= self.ready_at {
            return Poll::Ready(Ok(()));
        }
        let (waker, at) = (cx.waker().clone(), self.ready_at);
        tokio::spawn(async move {
            clock::until(at).await;
            waker.wake();
        });
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(clock::now() >= self.ready_at, "called before it was ready");
        Box::pin(takes(self.answers_after))
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_is_not_bounded_unless_asked_for() {
    let service = TimeoutLayer::new(LIMIT).layer(Slow::new(ms(900), ms(299)));
    assert_eq!(service.oneshot(()).await.unwrap(), "answer");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_counts_if_asked_for() {
    let layer = TimeoutLayer::new(LIMIT).cover_readiness();
    // Ready after, answers after, answered or not, ends after.
    let table = [
        (0, 299, true, 299),
        (100, 199, true, 299),
        (100, 250, false, 300),
        (900, 0, false, 300),
        (u64::MAX, 0, false, 300),
    ];
    for (ready, answers, answered, ends) in table {
        let start = clock::now();
        let service = layer.layer(Slow::new(ms(ready), ms(answers)));
        match service.oneshot(()).await {
            Ok(_) => assert!(answered),
            Err(error) => assert!(!answered && reason(&error) == TIMED_OUT, "{error}"),
        }
        assert_eq!(clock::now() - start, ms(ends), "{ready} {answers}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_readiness_counts_towards_a_limit_of_the_request() {
    #[derive(Clone)]
    struct Jobs(Slow);
    impl Service<Job> for Jobs {
        type Response = &'static str;
        type Error = BoxError;
        type Future = <Slow as Service<()>>::Future;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, job: Job) -> Self::Future {
            Box::pin(takes(ms(job.takes)))
        }
    }

    let layer = TimeoutLayer::new(LIMIT).by(may).cover_readiness();
    // Ready after, takes, may, given up after so long, at.
    let table = [
        (100, 199, None, None, 299),
        (100, 5000, None, Some(300), 300),
        // A longer limit: the wait is part of it.
        (100, 799, Some(900), None, 899),
        (100, 5000, Some(900), Some(900), 900),
        // A shorter one that the wait has not used up, and one that it has.
        (100, 5000, Some(150), Some(150), 150),
        (100, 0, Some(100), Some(100), 100),
        (100, 0, Some(50), Some(50), 100),
        // The wait has the layer's limit, whatever the request says.
        (400, 0, Some(900), Some(300), 300),
        (400, 0, Some(50), Some(300), 300),
        // Nobody waited.
        (0, 5000, Some(50), Some(50), 50),
    ];
    for (ready, takes, may, given_up, at) in table {
        let start = clock::now();
        let service = layer.layer(Jobs(Slow::new(ms(ready), Duration::ZERO)));
        let result = service.oneshot(job(takes, may)).await;
        let reason = result.err().map(|error| reason(&error));
        let expected = given_up.map(|after| Reason::TimedOut { after: ms(after) });
        assert_eq!(reason, expected, "{ready} {takes} {may:?}");
        assert_eq!(clock::now() - start, ms(at), "{ready} {takes} {may:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_at_the_deadline() {
    let layer = TimeoutLayer::new(LIMIT).cover_readiness();
    let start = clock::now();
    for (ready, answers) in [(900, 0), (50, 900)] {
        let service = layer.layer(Slow::new(ms(ready), ms(answers)));
        let call = Deadline::within(ms(100)).scope(service.oneshot(()));
        assert_eq!(reason(&call.await.unwrap_err()), Reason::DeadlineExceeded);
    }
    assert_eq!(clock::now() - start, ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_service_kept_ready_for_later_has_the_whole_limit() {
    let layer = TimeoutLayer::new(LIMIT).cover_readiness();
    let mut service = layer.layer(Slow::new(ms(200), ms(250)));
    service.ready().await.unwrap();
    clock::sleep(ms(3_600_000)).await;
    assert_eq!(service.call(()).await.unwrap(), "answer");

    // Nor is a wait that was given up held against a later caller.
    let mut service = layer.layer(Slow::new(ms(900), ms(250)));
    service.ready().await.unwrap();
    clock::sleep(ms(900)).await;
    let answer = service.ready().await.unwrap().call(()).await;
    assert_eq!(answer.unwrap(), "answer");
}

/// What readiness is at each poll.
struct Scripted(std::vec::IntoIter<Poll<Result<(), BoxError>>>);

impl Service<()> for Scripted {
    type Response = Duration;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Duration, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.next().expect("not polled so often")
    }

    /// Answers with what the call has left.
    fn call(&mut self, (): ()) -> Self::Future {
        let deadline = Deadline::current().expect("a deadline");
        std::future::ready(Ok(deadline.remaining(clock::now())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ended_is_not_held_against_the_next() {
    for end in [Ok(()), Err("reset".into())] {
        let polls = vec![
            Poll::Pending,
            Poll::Ready(end),
            Poll::Pending,
            Poll::Pending,
        ];
        let layer = TimeoutLayer::new(LIMIT).cover_readiness();
        let service = layer.layer(Scripted(polls.into_iter()));
        let mut service = tokio_test::task::spawn(service);
        let mut poll_ready = || service.enter(|cx, mut service| service.poll_ready(cx));
        assert!(poll_ready().is_pending());
        assert!(poll_ready().is_ready());
        clock::sleep(LIMIT).await;
        assert!(poll_ready().is_pending(), "a wait of its own");
        clock::sleep(LIMIT).await;
        assert!(poll_ready().is_ready(), "which ends as well");
    }

    // A call after an error has the whole limit; one after a wait has what that left.
    for (end, left) in [(Ok(()), LIMIT - ms(100)), (Err("reset".into()), LIMIT)] {
        let polls = vec![Poll::Pending, Poll::Ready(end), Poll::Ready(Ok(()))];
        let layer = TimeoutLayer::new(LIMIT).cover_readiness();
        let mut service = layer.layer(Scripted(polls.into_iter()));
        for _ in 0..3 {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = service.poll_ready(&mut cx);
        }
        clock::sleep(ms(100)).await;
        assert_eq!(service.call(()).await.unwrap(), left);
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_given_up_is_told_to_the_observer_once() {
    #[derive(Clone, Default)]
    struct Refusals(Arc<Mutex<Vec<Reason>>>);
    impl Observe for Refusals {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                self.0.lock().unwrap().push(rejected.reason());
            }
        }
    }
    let refusals = Refusals::default();
    let layer = TimeoutLayer::new(LIMIT)
        .cover_readiness()
        .observe(refusals.clone());
    let calls = [(0, 0), (900, 0), (0, 900)];
    for (ready, answers) in calls {
        let _ = layer
            .layer(Slow::new(ms(ready), ms(answers)))
            .oneshot(())
            .await;
    }
    assert_eq!(*refusals.0.lock().unwrap(), [TIMED_OUT; 2]);
}
