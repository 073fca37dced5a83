//! The limit that finds itself, through its public face, in paused time.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::limit::{Aimd, Limit, Sample, Vegas};
use buttress::error::Reason;
use buttress::layers::concurrency::{ConcurrencyLimit, Prioritise, Priority};
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::transport::http::ByExtension;
use buttress::{BoxError, Deadline, Outcome, Rejected, clock};
use tokio::time::{advance, sleep, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::util::BoxCloneService;
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
async fn a_listener_hears_where_the_limit_stands_and_each_change_once_it_is_in_force() {
    #[derive(Default)]
    struct Reads {
        limit: Mutex<Option<ConcurrencyLimit>>,
        heard: Mutex<Vec<usize>>,
    }
    impl Observe for Reads {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::LimitChanged { name, limit } = *event {
                assert_eq!(name, "orders");
                if let Some(it) = &*self.limit.lock().unwrap() {
                    assert_eq!(it.figures().limit, limit);
                }
                self.heard.lock().unwrap().push(limit);
            }
        }
    }
    let reads = Arc::new(Reads::default());
    let limit = ConcurrencyLimit::new("orders", Aimd::new(20)).observe(Arc::clone(&reads));
    *reads.limit.lock().unwrap() = Some(limit.clone());
    for outcome in [Outcome::Success, Outcome::Overload(None)] {
        let permit = limit.try_acquire(Priority::Critical).unwrap();
        advance(MS).await;
        permit.record(outcome);
    }
    limit.reconfigure(Aimd::new(30));
    assert_eq!(*reads.heard.lock().unwrap(), [20, 18, 30]);
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

#[tokio::test(start_paused = true)]
async fn two_services_from_one_layer_share_the_limit() {
    let (limit, _) = fixed(2);
    let layer = limit.layer();
    let mut services = [
        layer.layer(worker()),
        layer.clone().layer(worker()),
        limit.clone().layer().layer(worker()),
    ];
    let work = || Work(Priority::Normal, SECOND);
    let mut calls: Vec<_> = services
        .iter_mut()
        .map(|it| spawn(it.call(work())))
        .collect();
    assert_pending!(calls[0].poll());
    assert_pending!(calls[1].poll());
    let error = assert_ready_err!(calls[2].poll());
    assert_eq!(reason(&error), Reason::Full { limit: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_holds_none_of_the_inner_services_readiness() {
    let shared = tower::limit::ConcurrencyLimitLayer::new(2).layer(worker());
    let (tenant, _) = fixed(1);
    let mut greedy = tenant
        .queue(4.0, 4.0, 60 * SECOND)
        .layer()
        .layer(shared.clone());
    let work = |time| Work(Priority::Normal, time);
    let mut calls: Vec<_> = (0..5)
        .map(|_| spawn(greedy.call(work(60 * SECOND))))
        .collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    let mut other = fixed(1).0.layer().layer(shared);
    other
        .ready()
        .await
        .unwrap()
        .call(work(SECOND))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_figures_are_right_after_cancellation_and_panic() {
    let (limit, _) = fixed(1);
    let limit = limit.queue(2.0, 2.0, SECOND);
    let hung = limit
        .layer()
        .layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    let (held, waits) = (hung.clone().oneshot(()), hung.oneshot(()));
    let (mut held, mut waits) = (spawn(held), spawn(waits));
    assert_pending!(held.poll());
    assert_pending!(waits.poll());
    assert_eq!((limit.figures().in_flight, limit.figures().waiting), (1, 1));
    drop(waits);
    assert_eq!((limit.figures().in_flight, limit.figures().waiting), (1, 0));
    drop(held);
    assert_eq!(limit.figures().in_flight, 0);

    let panics = limit.layer().layer(service_fn(|late: bool| {
        assert!(late, "in the call");
        async move {
            assert!(!late, "in the future");
            Ok::<_, BoxError>(())
        }
    }));
    for late in [false, true] {
        let joined = tokio::spawn(panics.clone().oneshot(late)).await;
        assert!(joined.unwrap_err().is_panic());
        assert_eq!(limit.figures().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_algorithm_that_says_zero_lets_one_call_through_and_so_can_learn() {
    let (limit, samples) = fixed(0);
    let service = limit.layer().layer(worker());
    for _ in 0..3 {
        let work = Work(Priority::Low, MS);
        service.clone().oneshot(work).await.unwrap();
    }
    assert_eq!(limit.figures().limit, 1);
    assert_eq!(samples.lock().unwrap().len(), 3);
}

#[test]
fn a_priority_is_written_and_read_from_hop_to_hop() {
    for priority in [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ] {
        assert_eq!(priority.to_string().parse(), Ok(priority));
    }
    assert_eq!("HIGH".parse(), Ok(Priority::High));
    let error = "urgent".parse::<Priority>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "a priority must be `low`, `normal`, `high` or `critical`"
    );
}

#[test]
fn a_request_says_its_priority_in_an_extension() {
    let mut request = http::Request::new(());
    assert_eq!(ByExtension.priority(&request), Priority::Normal);
    request.extensions_mut().insert(Priority::Critical);
    assert_eq!(ByExtension.priority(&request), Priority::Critical);
    assert_eq!(ByExtension.caller(&request), None);
}

/// A call of a caller.
#[derive(Clone, Copy)]
struct Of(&'static str, Priority);

/// A service that takes a second a call, one at a time, and writes down whose it did. So many may wait.
fn in_turns(
    waiting: f64,
) -> (
    impl Service<Of, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
    Arc<Mutex<Vec<&'static str>>>,
) {
    let done = Arc::new(Mutex::new(Vec::new()));
    let limit = fixed(1).0.queue(waiting, waiting, 600 * SECOND);
    let layer = limit
        .layer()
        .priority(|of: &Of| of.1)
        .fair_by(|of: &Of| of.0);
    let service = layer.layer(service_fn({
        let done = Arc::clone(&done);
        move |Of(caller, _)| {
            done.lock().unwrap().push(caller);
            async {
                sleep(SECOND).await;
                Ok(())
            }
        }
    }));
    (service, done)
}

#[tokio::test(start_paused = true)]
async fn equals_are_served_caller_by_caller_and_not_call_by_call() {
    let (service, done) = in_turns(20.0);
    let mut calls = Vec::new();
    for caller in ["a", "a", "a", "a", "b", "c", "c"] {
        calls.push(tokio::spawn(
            service.clone().oneshot(Of(caller, Priority::Normal)),
        ));
        tokio::task::yield_now().await;
    }
    let matters = Of("a", Priority::High);
    calls.push(tokio::spawn(service.clone().oneshot(matters)));
    sleep(SECOND / 2).await;
    // One that comes while others wait stands in the round that is served, not before it.
    sleep(2 * SECOND).await;
    calls.push(tokio::spawn(
        service.clone().oneshot(Of("d", Priority::Normal)),
    ));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let done = done.lock().unwrap().concat();
    assert_eq!(
        done, "aaabcdaca",
        "who matters more goes first all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_from_the_caller_with_most_waiting() {
    let (service, done) = in_turns(4.0);
    let call = |caller| {
        let mut call = spawn(service.clone().oneshot(Of(caller, Priority::Normal)));
        assert_pending!(call.poll());
        call
    };
    let mut held = vec![call("a")];
    let mut greedy: Vec<_> = (0..4).map(|_| call("a")).collect();
    let mut refused = spawn(service.clone().oneshot(Of("a", Priority::Normal)));
    assert_eq!(
        reason(&assert_ready_err!(refused.poll())),
        Reason::QueueFull { limit: 4 }
    );
    for (others, place) in [("b", 3), ("c", 2)] {
        held.push(call(others));
        assert!(greedy[place].is_woken());
        let error = assert_ready_err!(greedy[place].poll());
        assert_eq!(reason(&error), Reason::QueueFull { limit: 4 });
    }
    assert_eq!(*done.lock().unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_queue_leaves_its_turn_to_its_own_caller() {
    let (service, done) = in_turns(20.0);
    let call = |caller| {
        let mut call = spawn(service.clone().oneshot(Of(caller, Priority::Normal)));
        assert_pending!(call.poll());
        call
    };
    let mut held = call("x");
    let gives_up = call("a");
    let mut waiting = [call("b"), call("a"), call("b"), call("a")];
    drop(gives_up);
    advance(SECOND).await;
    assert_ready_ok!(held.poll());
    for next in [1, 0, 3, 2] {
        assert!(waiting[next].is_woken(), "{next}");
        assert_pending!(waiting[next].poll());
        advance(SECOND).await;
        assert_ready_ok!(waiting[next].poll());
    }
    assert_eq!(done.lock().unwrap().concat(), "xabab");
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_more_by_asking_for_more() {
    buttress::rng::seed(5);
    let (limit, _) = fixed(10);
    let limit = limit.queue(1.0, 3.0, 2 * SECOND);
    let layer = limit.layer().fair_by(|of: &Of| of.0);
    let service = layer.layer(service_fn(|_| async {
        sleep(SECOND / 10).await;
        Ok::<_, BoxError>(())
    }));
    let service = BoxCloneService::new(service);
    // A hundred calls a second are served. What each offers in twenty seconds, evenly.
    let offers = [("greedy", 8_000), ("busy", 1_600), ("modest", 200)];
    let mut tasks = Vec::new();
    for (caller, calls) in offers {
        for call in 0..calls {
            let service = service.clone();
            tasks.push(tokio::spawn(async move {
                sleep(20 * SECOND * call / calls).await;
                let served = service.oneshot(Of(caller, Priority::Normal)).await.is_ok();
                (caller, served)
            }));
        }
    }
    let mut served = std::collections::HashMap::new();
    for task in tasks {
        let (caller, ok) = task.await.unwrap();
        *served.entry(caller).or_insert(0) += u32::from(ok);
    }
    println!("{served:?}");
    assert!(
        served["modest"] >= 198,
        "who asks for less than its share gets it"
    );
    let (greedy, busy) = (f64::from(served["greedy"]), f64::from(served["busy"]));
    assert!((0.9..1.1).contains(&(greedy / busy)), "{served:?}");
    assert!(greedy + busy > 1_750.0, "and nothing is left unused");
}
