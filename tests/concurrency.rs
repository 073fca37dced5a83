//! The limit that finds itself, through its public face, in paused time.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::limit::{Aimd, Limit, Sample, Vegas};
use buttress::error::Reason;
use buttress::layers::concurrency::{ConcurrencyLimit, Priority};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Deadline, Outcome, Rejected, clock};
use tokio::time::{advance, sleep, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A request that cannot be cloned: how much it matters, and how long to work.
struct Work(Priority, Duration);

fn worker()
-> impl Service<Work, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(|Work(_, time): Work| async move {
        sleep(time).await;
        Ok(())
    })
}

fn reason(error: &BoxError) -> Reason {
    Rejected::find(&**error).expect("a refusal").reason()
}

/// A limit that stays, and the samples that it was given.
#[derive(Clone, Default)]
struct Fixed(usize, Arc<Mutex<Vec<Sample>>>);

impl Limit for Fixed {
    fn on_sample(&mut self, sample: Sample, _: std::time::Instant) {
        self.1.lock().unwrap().push(sample);
    }

    fn limit(&self) -> usize {
        self.0
    }
}

fn fixed(limit: usize) -> (ConcurrencyLimit, Arc<Mutex<Vec<Sample>>>) {
    let fixed = Fixed(limit, Arc::default());
    let samples = Arc::clone(&fixed.1);
    (ConcurrencyLimit::new("orders", fixed), samples)
}

#[tokio::test(start_paused = true)]
async fn what_is_above_the_limit_is_refused_at_once_and_says_who_and_why() {
    let (limit, _) = fixed(2);
    let mut service = limit.layer().layer(worker());
    let work = || Work(Priority::Normal, SECOND);
    let _held = [service.call(work()), service.call(work())];
    let error = assert_ready_err!(spawn(service.call(work())).poll());
    let rejected = Rejected::find(&*error).expect("a refusal");
    assert_eq!(rejected.reason(), Reason::Full { limit: 2 });
    assert_eq!(
        (rejected.layer(), rejected.name()),
        ("concurrency limit", Some("orders"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_a_sample_of_its_latency_and_of_the_calls_under_way() {
    let (limit, samples) = fixed(5);
    let mut service = limit.layer().layer(worker());
    let start = clock::now();
    let _other = service.call(Work(Priority::Normal, SECOND));
    service.call(Work(Priority::Normal, 20 * MS)).await.unwrap();
    assert_eq!(
        *samples.lock().unwrap(),
        [Sample {
            start,
            rtt: 20 * MS,
            in_flight: 2,
            dropped: false
        }]
    );
    assert_eq!(limit.figures().latency, 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_idle_serial_client_does_not_inflate_the_limit() {
    for limit in [
        ConcurrencyLimit::new("aimd", Aimd::new(20)),
        ConcurrencyLimit::new("vegas", Vegas::new(20)),
    ] {
        let service = limit.layer().layer(worker());
        for _ in 0..3_000 {
            let work = Work(Priority::Normal, 10 * MS);
            service.clone().oneshot(work).await.unwrap();
        }
        assert_eq!(limit.figures().limit, 20, "{}", limit.name());
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_shrinks_the_limit_inside_and_outside_and_once_for_all_it_hits() {
    let hung = service_fn(|()| pending::<Result<(), BoxError>>());
    for outside in [true, false] {
        let limit = ConcurrencyLimit::new("orders", Aimd::new(100));
        let mut calls = Vec::new();
        for _ in 0..7 {
            calls.push(if outside {
                let service = limit.layer().layer(hung);
                tokio::spawn(TimeoutLayer::new(SECOND).layer(service).oneshot(()))
            } else {
                let service = TimeoutLayer::new(SECOND).layer(hung);
                tokio::spawn(limit.layer().layer(service).oneshot(()))
            });
        }
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert!(Rejected::find(&*error).unwrap().is_timeout());
        }
        assert_eq!(limit.figures().limit, 90, "outside: {outside}");
        assert_eq!(limit.figures().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_sooner_than_an_answer_comes_says_nothing() {
    let (limit, samples) = fixed(10);
    let service = limit.layer().layer(worker());
    let call = |time| service.clone().oneshot(Work(Priority::Normal, time));
    call(100 * MS).await.unwrap();
    samples.lock().unwrap().clear();

    timeout(50 * MS, call(SECOND)).await.unwrap_err();
    drop(call(SECOND));
    assert!(samples.lock().unwrap().is_empty());
    timeout(101 * MS, call(SECOND)).await.unwrap_err();
    assert!(samples.lock().unwrap()[0].dropped);
}

#[tokio::test(start_paused = true)]
async fn a_fast_failure_is_no_fast_answer_and_an_overload_is_a_drop_however_fast() {
    let (limit, samples) = fixed(10);
    let service = service_fn(|result: Result<(), &'static str>| async move {
        sleep(MS).await;
        result.map_err(BoxError::from)
    });
    let classify = |result: Result<&(), &BoxError>| match result {
        Ok(()) => Outcome::Success,
        Err(error) if error.to_string() == "too much" => Outcome::Overload(None),
        Err(_) => Outcome::Failure,
    };
    let service = limit.layer().classify(classify).layer(service);
    let call = |result| service.clone().oneshot(result);
    call(Ok(())).await.unwrap();
    samples.lock().unwrap().clear();
    call(Err("connection reset")).await.unwrap_err();
    assert!(samples.lock().unwrap().is_empty());
    call(Err("too much")).await.unwrap_err();
    assert!(samples.lock().unwrap()[0].dropped);
}

#[tokio::test(start_paused = true)]
async fn each_priority_leaves_room_to_those_above_it() {
    let (limit, _) = fixed(20);
    let fill = |priority| {
        let held: Vec<_> = std::iter::from_fn(|| limit.try_acquire(priority).ok()).collect();
        let in_flight = limit.figures().in_flight;
        (held, in_flight)
    };
    let (low, after_low) = fill(Priority::Low);
    let (normal, after_normal) = fill(Priority::Normal);
    let (high, after_high) = fill(Priority::High);
    let (critical, after_critical) = fill(Priority::Critical);
    assert_eq!(
        [after_low, after_normal, after_high, after_critical],
        [14, 16, 18, 20]
    );
    drop((low, normal, high, critical));
    assert_eq!(limit.figures().in_flight, 0);
    // One may always call.
    let (limit, _) = fixed(1);
    let _permit = limit.try_acquire(Priority::Low).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_matters_more_goes_first_and_equals_in_turn() {
    let (limit, _) = fixed(1);
    let limit = limit.queue(4.0, 4.0, 60 * SECOND);
    let mut service = limit.layer().priority(|work: &Work| work.0).layer(worker());
    let mut call = |priority| spawn(service.call(Work(priority, SECOND)));
    let mut held = call(Priority::Low);
    assert_pending!(held.poll());
    let mut waiting = [
        call(Priority::Low),
        call(Priority::Low),
        call(Priority::High),
        call(Priority::High),
    ];
    assert_eq!(limit.figures().waiting, 4);
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    advance(SECOND).await;
    assert_ready_ok!(held.poll());
    for next in [2, 3, 0, 1] {
        for (i, call) in waiting.iter_mut().enumerate() {
            assert_eq!(call.is_woken(), i == next, "{i} before {next}");
        }
        assert_pending!(waiting[next].poll());
        advance(SECOND).await;
        assert_ready_ok!(waiting[next].poll());
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_full_queue_the_last_of_the_lowest_gives_way() {
    let (limit, _) = fixed(1);
    let limit = limit.queue(2.0, 2.0, 60 * SECOND);
    let mut service = limit.layer().priority(|work: &Work| work.0).layer(worker());
    let mut call = |priority| spawn(service.call(Work(priority, SECOND)));
    let _held = call(Priority::Normal);
    let mut waiting = [call(Priority::Low), call(Priority::Low)];
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    let full = Reason::QueueFull { limit: 2 };
    assert_eq!(reason(&assert_ready_err!(call(Priority::Low).poll())), full);

    let mut matters = call(Priority::High);
    assert_pending!(matters.poll());
    assert!(waiting[1].is_woken());
    assert_eq!(reason(&assert_ready_err!(waiting[1].poll())), full);
    assert_pending!(waiting[0].poll());
    assert_eq!(limit.figures().waiting, 2);
}

#[tokio::test(start_paused = true)]
async fn the_queue_refuses_more_the_longer_it_is() {
    buttress::rng::seed(5);
    let (limit, _) = fixed(50);
    let limit = limit.queue(1.0, 3.0, 60 * SECOND);
    let mut service = limit.layer().layer(worker());
    let mut calls = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        calls.push(service.call(Work(Priority::Normal, SECOND)));
        waiting.push(limit.figures().waiting);
    }
    assert_eq!(waiting[99], 50, "all that come may wait while few do");
    assert!((80..145).contains(&waiting[200]), "{}", waiting[200]);
    assert!((120..=150).contains(&waiting[999]), "{}", waiting[999]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_says_nor_past_the_deadline() {
    let (limit, _) = fixed(1);
    let limit = limit.queue(2.0, 2.0, SECOND);
    let mut service = limit.layer().layer(worker());
    let _held = service.call(Work(Priority::Normal, 60 * SECOND));
    let error = service
        .call(Work(Priority::Normal, SECOND))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), Reason::WaitedTooLong { after: SECOND });
    let error = Deadline::within(10 * MS)
        .scope(service.call(Work(Priority::Normal, SECOND)))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), Reason::DeadlineExceeded);
    assert_eq!(limit.figures().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_grows_wakes_who_waits() {
    let limit = ConcurrencyLimit::new("orders", Aimd::new(1)).queue(2.0, 2.0, 60 * SECOND);
    let mut service = limit.layer().layer(worker());
    let mut first = spawn(service.call(Work(Priority::Normal, SECOND)));
    assert_pending!(first.poll());
    let mut rest: Vec<_> = (0..2)
        .map(|_| spawn(service.call(Work(Priority::Normal, SECOND))))
        .collect();
    for call in &mut rest {
        assert_pending!(call.poll());
    }
    advance(SECOND).await;
    assert_ready_ok!(first.poll());
    assert_eq!(limit.figures().limit, 2);
    assert!(rest.iter().all(|call| call.is_woken()));
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_each_refusal_and_may_read_the_limit() {
    #[derive(Default)]
    struct Reads {
        limit: Mutex<Option<ConcurrencyLimit>>,
        heard: Mutex<Vec<(Reason, usize)>>,
    }
    impl Observe for Reads {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                let limit = self.limit.lock().unwrap().clone().expect("set");
                let heard = (rejected.reason(), limit.figures().in_flight);
                self.heard.lock().unwrap().push(heard);
            }
        }
    }
    let reads = Arc::new(Reads::default());
    let (limit, _) = fixed(1);
    let limit = limit.observe(Arc::clone(&reads));
    *reads.limit.lock().unwrap() = Some(limit.clone());
    let _held = limit.try_acquire(Priority::Critical).unwrap();
    limit.try_acquire(Priority::Critical).unwrap_err();
    assert_eq!(
        *reads.heard.lock().unwrap(),
        [(Reason::Full { limit: 1 }, 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_a_slot_allocates_nothing() {
    let limit = ConcurrencyLimit::new("orders", Vegas::new(10)).queue(1.0, 2.0, SECOND);
    let inner = service_fn(|()| std::future::ready(Ok::<_, BoxError>(())));
    let mut service = limit.layer().layer(inner);
    let allocated = allocation_counter::measure(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = std::pin::pin!(service.call(()));
        assert!(call.poll(&mut cx).is_ready());
    });
    assert_eq!(allocated.count_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_under_contention() {
    let limit = ConcurrencyLimit::new("orders", Aimd::new(3).within(1..=5)).queue(
        500.0,
        1_000.0,
        60 * SECOND,
    );
    let inner = service_fn(|()| async {
        tokio::task::yield_now().await;
        Ok::<_, BoxError>(())
    });
    let service = limit.layer().layer(inner);
    let calls: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(service.clone().oneshot(())))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let figures = limit.figures();
    assert_eq!((figures.in_flight, figures.waiting), (0, 0));
    assert!(figures.limit <= 5);
}

#[tokio::test(start_paused = true)]
async fn the_algorithm_can_be_changed_while_calls_flow() {
    let (limit, _) = fixed(1);
    let limit = limit.queue(2.0, 2.0, SECOND);
    let _held = limit.try_acquire(Priority::Critical).unwrap();
    let mut service = limit.layer().layer(worker());
    let mut waits = spawn(service.call(Work(Priority::Normal, SECOND)));
    assert_pending!(waits.poll());
    limit.reconfigure(Fixed(2, Arc::default()));
    assert!(waits.is_woken());
    assert_eq!((limit.figures().limit, limit.figures().in_flight), (2, 2));
}

#[test]
#[should_panic(expected = "is no queue")]
fn a_queue_shorter_than_the_limit_is_refused_where_it_is_written() {
    let _ = fixed(1).0.queue(0.5, 2.0, SECOND);
}
