//! The bulkhead through its public face, in paused time.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::error::Reason;
use buttress::layers::bulkhead::{Acquire, Bulkhead, Order, Permit, Settings};
use buttress::observe::{Event, Observe};
use buttress::transport::http::HeldBody;
use buttress::{BoxError, Deadline, Rejected, clock};
use proptest::prelude::*;
use tokio::time::sleep;
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// A request that cannot be cloned: how long to work.
struct Work(Duration);

fn worker()
-> impl Service<Work, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(|Work(time): Work| async move {
        sleep(time).await;
        Ok(())
    })
}

fn reason(error: &BoxError) -> Reason {
    Rejected::find(&**error).expect("a refusal").reason()
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_refuses_at_once_and_says_who_and_why() {
    let bulkhead = Bulkhead::new("orders", 2);
    let mut service = bulkhead.layer().layer(worker());
    let _held = [service.call(Work(SECOND)), service.call(Work(SECOND))];

    let error = assert_ready_err!(spawn(service.call(Work(SECOND))).poll());
    let rejected = Rejected::find(&*error).expect("a refusal");
    assert_eq!(rejected.reason(), Reason::Full { limit: 2 });
    assert_eq!(
        (rejected.layer(), rejected.name()),
        ("bulkhead", Some("orders"))
    );
}

#[tokio::test(start_paused = true)]
async fn all_services_of_one_handle_share_its_slots() {
    let bulkhead = Bulkhead::new("orders", 1);
    let layer = bulkhead.layer();
    let mut one = layer.layer(worker());
    let two = layer.layer(worker());
    let three = bulkhead.clone().layer().layer(worker());

    let _held = one.call(Work(SECOND));
    for service in [two, three] {
        let error = service.oneshot(Work(SECOND)).await.unwrap_err();
        assert_eq!(reason(&error), Reason::Full { limit: 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn slots_that_outlive_their_bulkhead_free_none_of_another() {
    let gone = Bulkhead::new("orders", 1000);
    // Some of these, given back, stay where they were taken.
    let held: Vec<_> = (0..100).map(|_| gone.acquire()).collect();
    let mut permits = Vec::new();
    for permit in held {
        permits.push(permit.await.unwrap());
    }
    drop(gone);
    let next = Bulkhead::new("orders", 1);
    let slot = next.acquire().await.unwrap();
    drop(permits);
    assert_eq!(next.in_flight(), 1);
    next.acquire().await.unwrap_err();
    drop(slot);
    // And what they have left is as good as new.
    for limit in [1, 2, 1000, 3] {
        let another = Bulkhead::new("orders", limit);
        let slots: Vec<_> = (0..limit).map(|_| another.acquire()).collect();
        another.acquire().await.unwrap_err();
        assert_eq!(another.in_flight(), limit);
        drop(slots);
        assert_eq!(another.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_length_and_in_time() {
    let bulkhead = Bulkhead::new("orders", 1).queue(1, 2 * SECOND);
    let mut service = bulkhead.layer().layer(worker());
    let _held = service.call(Work(SECOND));
    let waits = service.call(Work(SECOND));
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (1, 1));

    let error = service.call(Work(SECOND)).await.unwrap_err();
    assert_eq!(reason(&error), Reason::QueueFull { limit: 1 });

    let began = clock::now();
    let error = waits.await.unwrap_err();
    assert_eq!(reason(&error), Reason::WaitedTooLong { after: 2 * SECOND });
    assert_eq!(clock::now() - began, 2 * SECOND);
    assert_eq!(bulkhead.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline() {
    let bulkhead = Bulkhead::new("orders", 1).queue(2, 60 * SECOND);
    let mut service = bulkhead.layer().layer(worker());
    let _held = bulkhead.acquire().await.unwrap();

    // Around the call and its future, around the future only, and around the call only.
    let began = clock::now();
    let mut called = None;
    Deadline::within(3 * SECOND)
        .scope(async { called = Some(service.call(Work(SECOND))) })
        .await;
    for result in [
        Deadline::within(SECOND)
            .scope(service.clone().oneshot(Work(SECOND)))
            .await,
        Deadline::within(SECOND)
            .scope(service.call(Work(SECOND)))
            .await,
        called.expect("called").await,
    ] {
        assert_eq!(reason(&result.unwrap_err()), Reason::DeadlineExceeded);
    }
    assert_eq!(clock::now() - began, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_turn_and_a_newcomer_does_not_overtake() {
    let bulkhead = Bulkhead::new("orders", 1).queue(3, SECOND);
    let held = bulkhead.acquire().await.unwrap();
    let mut first = spawn(bulkhead.acquire());
    let mut second = spawn(bulkhead.acquire());
    assert_pending!(second.poll());
    assert_pending!(first.poll());

    drop(held);
    assert!(first.is_woken() && !second.is_woken());
    // The slot is the first one's already, although it has not looked yet.
    let mut newcomer = spawn(bulkhead.acquire());
    assert_pending!(newcomer.poll());
    assert_pending!(second.poll());
    drop(assert_ready_ok!(first.poll()));
    drop(assert_ready_ok!(second.poll()));
    drop(assert_ready_ok!(newcomer.poll()));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_moves_to_another_task_wakes_that_one() {
    let bulkhead = Bulkhead::new("orders", 1).queue(1, SECOND);
    let held = bulkhead.acquire().await.unwrap();
    let mut waits = Box::pin(bulkhead.acquire());
    let mut left = spawn(());
    let mut entered = spawn(());
    for task in [&mut left, &mut entered] {
        assert_pending!(task.enter(|cx, _| waits.as_mut().poll(cx)));
    }
    drop(held);
    assert_eq!((left.is_woken(), entered.is_woken()), (false, true));
}

#[tokio::test(start_paused = true)]
async fn the_newest_can_come_first_and_a_full_queue_then_refuses_the_newcomer() {
    let bulkhead = Bulkhead::new("orders", 1)
        .queue(2, SECOND)
        .order(Order::NewestFirst);
    let held = bulkhead.acquire().await.unwrap();
    let (mut first, mut second) = (spawn(bulkhead.acquire()), spawn(bulkhead.acquire()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    let refused = bulkhead.acquire().await.unwrap_err();
    assert_eq!(refused.reason(), Reason::QueueFull { limit: 2 });

    drop(held);
    assert!(!first.is_woken());
    drop(assert_ready_ok!(second.poll()));
    drop(assert_ready_ok!(first.poll()));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_can_give_way_to_a_newcomer() {
    let bulkhead = Bulkhead::new("orders", 1)
        .queue(2, SECOND)
        .order(Order::NewestFirstDropOldest);
    let held = bulkhead.acquire().await.unwrap();
    let mut oldest = spawn(bulkhead.acquire());
    assert_pending!(oldest.poll());
    let _second = bulkhead.acquire();
    let mut newest = spawn(bulkhead.acquire());
    assert_pending!(newest.poll());

    assert!(oldest.is_woken());
    let refused = assert_ready_err!(oldest.poll());
    assert_eq!(refused.reason(), Reason::QueueFull { limit: 2 });
    assert_eq!(bulkhead.waiting(), 2);
    drop(held);
    drop(assert_ready_ok!(newest.poll()));
}

#[tokio::test(start_paused = true)]
async fn one_who_gave_way_unnoticed_gives_back_no_slot() {
    let bulkhead = Bulkhead::new("orders", 1)
        .queue(1, SECOND)
        .order(Order::NewestFirstDropOldest);
    let _held = bulkhead.acquire().await.unwrap();
    let oldest = bulkhead.acquire();
    let _newest = bulkhead.acquire();
    drop(oldest);
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_leaves_the_queue() {
    let bulkhead = Bulkhead::new("orders", 1).queue(2, SECOND);
    let held = bulkhead.acquire().await.unwrap();
    let first = bulkhead.acquire();
    let mut second = spawn(bulkhead.acquire());

    drop(first);
    assert_eq!(bulkhead.waiting(), 1);
    drop(held);
    drop(assert_ready_ok!(second.poll()));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_hands_on_the_slot_it_was_just_given() {
    let bulkhead = Bulkhead::new("orders", 1).queue(2, SECOND);
    let held = bulkhead.acquire().await.unwrap();
    let first = bulkhead.acquire();
    let mut second = spawn(bulkhead.acquire());
    assert_pending!(second.poll());

    drop(held);
    drop(first);
    assert!(second.is_woken());
    drop(assert_ready_ok!(second.poll()));
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_there_in_time_is_not_refused_for_being_noticed_late() {
    let bulkhead = Bulkhead::new("orders", 1).queue(1, SECOND);
    let held = bulkhead.acquire().await.unwrap();
    let mut waits = spawn(bulkhead.acquire());
    assert_pending!(waits.poll());
    drop(held);
    sleep(2 * SECOND).await;
    drop(assert_ready_ok!(waits.poll()));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_holds_none_of_the_inner_services_readiness() {
    // Two tenants in front of one shared limit of two. The first has one slot and five calls.
    let shared = tower::limit::ConcurrencyLimitLayer::new(2).layer(worker());
    let tenant = Bulkhead::new("tenant", 1).queue(4, 60 * SECOND);
    let mut greedy = tenant.layer().layer(shared.clone());
    let mut calls: Vec<_> = (0..5)
        .map(|_| spawn(greedy.call(Work(60 * SECOND))))
        .collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    let mut other = Bulkhead::new("other", 1).layer().layer(shared);
    other
        .ready()
        .await
        .unwrap()
        .call(Work(SECOND))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn ready_clones_that_idle_hold_nothing() {
    let bulkhead = Bulkhead::new("orders", 1);
    let service = bulkhead.layer().layer(worker());
    let mut clones: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut clones {
        clone.ready().await.unwrap();
    }
    assert_eq!(bulkhead.in_flight(), 0);
    service.oneshot(Work(SECOND)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_figures_and_the_slots_are_right_after_cancellation_and_panic() {
    let bulkhead = Bulkhead::new("orders", 1);
    let layer = bulkhead.layer();

    let hung = layer.layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    let cancelled = tokio::time::timeout(SECOND, hung.oneshot(())).await;
    assert!(cancelled.is_err());
    assert_eq!(bulkhead.in_flight(), 0);

    let panics = layer.layer(service_fn(|late: bool| {
        assert!(late, "in the call");
        async move {
            assert!(!late, "in the future");
            Ok::<_, BoxError>(())
        }
    }));
    for late in [false, true] {
        let joined = tokio::spawn(panics.clone().oneshot(late)).await;
        assert!(joined.unwrap_err().is_panic());
        assert_eq!(bulkhead.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_slot_ends_with_the_call_and_not_with_its_future() {
    let bulkhead = Bulkhead::new("orders", 1);
    let mut service = bulkhead.layer().layer(worker());
    let mut call = Box::pin(service.call(Work(SECOND)));
    call.as_mut().await.unwrap();
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_can_be_held_until_the_body_has_been_read() {
    let bulkhead = Bulkhead::new("orders", 1);
    let permit = bulkhead.acquire().await.unwrap();
    worker().oneshot(Work(SECOND)).await.unwrap();
    assert_eq!(bulkhead.in_flight(), 1, "the head is here, the body is not");
    drop(permit);
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn growing_wakes_who_waits() {
    let bulkhead = Bulkhead::new("orders", 1).queue(3, SECOND);
    let _held = bulkhead.acquire().await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| spawn(bulkhead.acquire())).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    bulkhead.resize(3);
    let woken: Vec<_> = waiting.iter().map(Spawn::is_woken).collect();
    assert_eq!(woken, [true, true, false]);
    assert_eq!((bulkhead.limit(), bulkhead.in_flight()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn shrinking_returns_at_once_and_takes_effect_as_calls_end() {
    let bulkhead = Bulkhead::new("orders", 3);
    let mut held: Vec<Permit> = Vec::new();
    for _ in 0..3 {
        held.push(bulkhead.acquire().await.unwrap());
    }
    bulkhead.resize(1);
    assert_eq!((bulkhead.limit(), bulkhead.in_flight()), (1, 3));
    while held.pop().is_some() && !held.is_empty() {
        assert!(bulkhead.acquire().await.is_err());
    }
    drop(bulkhead.acquire().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_queue_changes_while_calls_flow_and_who_waits_is_not_turned_out() {
    let bulkhead = Bulkhead::new("orders", 1);
    let service = bulkhead.layer().layer(worker());
    let call = || spawn(service.clone().oneshot(Work(SECOND)));
    let one = Settings::new(1);
    let held = bulkhead.acquire().await.unwrap();
    let began = clock::now();

    let mut refused = call();
    assert_eq!(
        reason(&assert_ready_err!(refused.poll())),
        Reason::Full { limit: 1 }
    );
    bulkhead.reconfigure(one.queue(2, 10 * SECOND));
    let (mut first, mut second) = (call(), call());
    assert_pending!(first.poll());
    assert_pending!(second.poll());

    // Shorter, in length and in time: for those who come.
    bulkhead.reconfigure(one.queue(1, SECOND));
    let mut refused = call();
    assert_eq!(
        reason(&assert_ready_err!(refused.poll())),
        Reason::QueueFull { limit: 1 }
    );
    bulkhead.reconfigure(one);
    assert_eq!(bulkhead.waiting(), 2);
    let mut refused = call();
    assert_eq!(
        reason(&assert_ready_err!(refused.poll())),
        Reason::Full { limit: 1 }
    );
    sleep(19 * SECOND / 2).await;
    drop(held);
    let second = async {
        let error = second.await.unwrap_err();
        assert_eq!(reason(&error), Reason::WaitedTooLong { after: 10 * SECOND });
        assert_eq!(clock::now() - began, 10 * SECOND);
    };
    let (first, ()) = tokio::join!(first, second);
    first.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_longer_wait_is_for_those_who_come() {
    let bulkhead = Bulkhead::new("orders", 1).queue(1, SECOND);
    let _held = bulkhead.acquire().await.unwrap();
    let first = bulkhead.acquire();
    bulkhead.reconfigure(bulkhead.settings().queue(2, 3 * SECOND));
    let (first, second) = tokio::join!(first, bulkhead.acquire());
    let after = |result: Result<Permit, Rejected>| result.unwrap_err().reason();
    assert_eq!(after(first), Reason::WaitedTooLong { after: SECOND });
    assert_eq!(after(second), Reason::WaitedTooLong { after: 3 * SECOND });
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_the_order_changes_is_served_before_all_who_come_and_gives_way_to_none()
{
    let codel = Order::CoDel {
        target: SECOND / 1000,
        interval: SECOND / 100,
    };
    for order in [Order::NewestFirst, Order::NewestFirstDropOldest, codel] {
        let bulkhead = Bulkhead::new("orders", 1).queue(2, 60 * SECOND);
        let held = bulkhead.acquire().await.unwrap();
        let (mut first, mut second) = (spawn(bulkhead.acquire()), spawn(bulkhead.acquire()));
        bulkhead.reconfigure(bulkhead.settings().order(order));
        let mut refused = spawn(bulkhead.acquire());
        let full = assert_ready_err!(refused.poll()).reason();
        assert_eq!(full, Reason::QueueFull { limit: 2 });

        bulkhead.reconfigure(bulkhead.settings().queue(3, 60 * SECOND));
        let mut newcomer = spawn(bulkhead.acquire());
        sleep(SECOND).await;
        for waits in [&mut first, &mut second, &mut newcomer] {
            assert_pending!(waits.poll());
        }
        drop(held);
        let first = assert_ready_ok!(first.poll());
        sleep(SECOND).await;
        assert_pending!(newcomer.poll());
        drop(first);
        drop(assert_ready_ok!(second.poll()));
        assert!(newcomer.is_woken(), "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_reach_all_clones_save_the_queue_of_one_that_has_its_own() {
    let bulkhead = Bulkhead::new("orders", 1);
    let (like, own) = (bulkhead.clone(), bulkhead.clone().queue(5, SECOND));
    let settings = Settings::new(2)
        .queue(3, 2 * SECOND)
        .order(Order::NewestFirst);
    bulkhead.reconfigure(settings);
    assert_eq!((bulkhead.settings(), like.settings()), (settings, settings));
    assert_eq!(own.settings(), settings.queue(5, SECOND));
    assert_eq!(like.limit(), 2);
    own.reconfigure(settings.no_queue());
    assert_eq!(own.settings(), settings.no_queue());
    assert_eq!(like.settings(), settings);
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_each_refusal_and_may_read_the_bulkhead() {
    #[derive(Default)]
    struct Reads {
        bulkhead: Mutex<Option<Bulkhead>>,
        heard: Mutex<Vec<(Reason, usize)>>,
    }
    impl Observe for Reads {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                let bulkhead = self.bulkhead.lock().unwrap().clone().expect("set");
                let mut heard = self.heard.lock().unwrap();
                heard.push((rejected.reason(), bulkhead.waiting()));
                bulkhead.resize(bulkhead.limit());
            }
        }
    }

    let reads = Arc::new(Reads::default());
    let bulkhead = Bulkhead::new("orders", 1)
        .queue(1, SECOND)
        .observe(Arc::clone(&reads));
    *reads.bulkhead.lock().unwrap() = Some(bulkhead.clone());

    let _held = bulkhead.acquire().await.unwrap();
    let waits = bulkhead.acquire();
    bulkhead.acquire().await.unwrap_err();
    waits.await.unwrap_err();
    assert_eq!(
        *reads.heard.lock().unwrap(),
        [
            (Reason::QueueFull { limit: 1 }, 1),
            (Reason::WaitedTooLong { after: SECOND }, 0)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_inner_services_readiness_ends_the_call_and_gives_the_slot_back() {
    #[derive(Clone)]
    struct Broken;
    impl Service<()> for Broken {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("connection refused".into()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            panic!("not ready")
        }
    }
    let bulkhead = Bulkhead::new("orders", 1);
    let error = bulkhead.layer().layer(Broken).oneshot(()).await;
    assert_eq!(error.unwrap_err().to_string(), "connection refused");
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_a_slot_allocates_nothing() {
    let bulkhead = Bulkhead::new("orders", 1).queue(1, SECOND);
    let inner = service_fn(|()| std::future::ready(Ok::<_, BoxError>(())));
    let mut service = bulkhead.layer().layer(inner);
    let allocated = allocation_counter::measure(|| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = std::pin::pin!(service.call(()));
        assert!(call.poll(&mut cx).is_ready());
    });
    assert_eq!(allocated.count_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_and_nobody_is_forgotten_under_contention() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let inner = service_fn(|()| async {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        NOW.fetch_sub(1, Ordering::SeqCst);
        Ok::<_, BoxError>(())
    });
    let bulkhead = Bulkhead::new("orders", 3).queue(1000, 60 * SECOND);
    let service = bulkhead.layer().layer(inner);
    let calls: Vec<_> = (0..1000)
        .map(|_| tokio::spawn(service.clone().oneshot(())))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(MOST.load(Ordering::SeqCst) <= 3);
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_stands_is_cut_to_those_who_can_be_served_in_time() {
    let ms = Duration::from_millis;
    let codel = Order::CoDel {
        target: ms(5),
        interval: ms(100),
    };
    let bulkhead = Bulkhead::new("orders", 1)
        .queue(1_000, 60 * SECOND)
        .order(codel);
    let service = bulkhead.layer().layer(worker());
    // Twice what one slot can do, for two seconds.
    let mut calls = Vec::new();
    for _ in 0..400 {
        let call = service.clone().oneshot(Work(ms(10)));
        calls.push(tokio::spawn(async move {
            let began = clock::now();
            (call.await, clock::now() - began)
        }));
        sleep(ms(5)).await;
    }
    let mut done = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            (Ok(()), took) => done.push(took),
            (Err(error), _) => {
                let late =
                    matches!(reason(&error), Reason::WaitedTooLong { after } if after > ms(10));
                assert!(late, "{error}");
            }
        }
    }
    assert!((190..=215).contains(&done.len()), "{}", done.len());
    let late = done[done.len() / 2..].iter().filter(|took| **took > ms(25));
    assert_eq!(
        late.count(),
        0,
        "once the line stands, who is served is served in time"
    );
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_worked_off_although_everybody_waits() {
    let ms = Duration::from_millis;
    let codel = Order::CoDel {
        target: ms(5),
        interval: ms(100),
    };
    let bulkhead = Bulkhead::new("orders", 1).queue(1_000, SECOND).order(codel);
    let service = bulkhead.layer().layer(worker());
    let calls: Vec<_> = (0..9)
        .map(|_| tokio::spawn(service.clone().oneshot(Work(ms(10)))))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_borrows_what_is_free_and_gets_its_share_whoever_borrowed_it() {
    let bulkhead = Bulkhead::new("orders", 10).partitions([("batch", 0.3), ("live", 0.7)]);
    let [batch, live] = ["batch", "live"].map(|name| bulkhead.partition(name));
    assert_eq!((batch.limit(), live.limit(), bulkhead.limit()), (3, 7, 10));
    let take = async |bulkhead: &Bulkhead, calls| {
        let mut held = Vec::new();
        for _ in 0..calls {
            held.push(bulkhead.acquire().await.unwrap());
        }
        held
    };

    let mut borrowed = take(&batch, 10).await;
    let error = batch.acquire().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Full { limit: 10 });
    let own = take(&live, 7).await;
    assert!(live.acquire().await.is_err());
    assert_eq!(
        (batch.in_flight(), live.in_flight(), bulkhead.in_flight()),
        (10, 7, 17)
    );

    // Those that were borrowed are not given out again.
    borrowed.truncate(3);
    assert!(batch.acquire().await.is_err());
    borrowed.truncate(2);
    borrowed.push(batch.acquire().await.unwrap());
    // And who is of no partition gets what all of them leave.
    assert!(bulkhead.acquire().await.is_err());
    drop(own);
    drop(bulkhead.acquire().await.unwrap());
    bulkhead.resize(20);
    assert_eq!((batch.limit(), live.limit()), (6, 14));
}

#[tokio::test(start_paused = true)]
async fn the_request_says_its_partition_and_what_names_none_or_none_there_is_gets_the_rest() {
    let bulkhead = Bulkhead::new("orders", 4).partitions([("live", 0.5), ("batch", 0.25)]);
    let [live, batch] = ["live", "batch"].map(|name| bulkhead.partition(name));
    let hangs = service_fn(|_: &str| pending::<Result<(), BoxError>>());
    fn named<'a>(request: &'a &'static str) -> Option<&'a str> {
        (!request.is_empty()).then_some(*request)
    }
    let mut service = bulkhead.layer().partition_by(named).layer(hangs);

    let mut held = vec![
        service.call("batch"),
        service.call("live"),
        service.call(""),
    ];
    assert_eq!((live.in_flight(), batch.in_flight()), (1, 1));
    held.push(service.call("no such"));
    assert_eq!((live.in_flight(), batch.in_flight()), (1, 1));
    assert_eq!(bulkhead.in_flight(), 4);
    for request in ["batch", "", "no such"] {
        let error = service.call(request).await.unwrap_err();
        assert_eq!(reason(&error), Reason::Full { limit: 4 });
    }
    held.push(service.call("live"));
    assert_eq!(live.in_flight(), 2, "its share, whoever borrowed it");
    drop(held);
    assert_eq!(bulkhead.in_flight(), 0);

    // Of a partition's layer, that partition is the rest; of a bulkhead without any, all of it.
    let mut service = batch.layer().partition_by(named).layer(hangs);
    let _held = [service.call("live"), service.call("no such")];
    assert_eq!((live.in_flight(), batch.in_flight()), (1, 1));
    let whole = Bulkhead::new("orders", 4);
    let _held = whole.layer().partition_by(named).layer(hangs).call("live");
    assert_eq!(whole.in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_partition_may_be_named_by_a_part_of_the_request() {
    struct Request {
        tenant: String,
    }
    let bulkhead = Bulkhead::new("orders", 2).partitions([("live", 0.5)]);
    let service = bulkhead
        .layer()
        .partition_by(|request: &Request| Some(&*request.tenant))
        .hold(|(), permit: Permit| permit)
        .layer(service_fn(|_: Request| async { Ok::<_, BoxError>(()) }));
    let tenant = "live".to_owned();
    let _held = service.oneshot(Request { tenant }).await.unwrap();
    assert_eq!(bulkhead.partition("live").in_flight(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_stay_within_the_limit_and_their_shares_under_contention() {
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let bulkhead = Bulkhead::new("orders", 4).partitions([("a", 0.5), ("b", 0.5)]);
    let tasks = ["a", "b"].map(|name| {
        let (all, own) = (bulkhead.clone(), bulkhead.partition(name));
        tokio::spawn(async move {
            for _ in 0..20_000 {
                let held: Vec<_> = (0..4).map(|_| own.acquire()).collect();
                MOST.fetch_max(all.in_flight(), Ordering::SeqCst);
                for (i, permit) in held.into_iter().enumerate() {
                    assert!(
                        permit.await.is_ok() || i >= 2,
                        "a partition has two for itself"
                    );
                }
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    // One of them may have borrowed two when the other came for its own.
    assert!(MOST.load(Ordering::SeqCst) <= 6);
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_held_until_the_body_has_been_read() {
    use http_body_util::{BodyExt, Full};

    let bulkhead = Bulkhead::new("downloads", 1);
    let service = bulkhead
        .layer()
        .hold(|body: Full<&'static [u8]>, permit: Permit| HeldBody::new(body, permit))
        .layer(service_fn(|chunk: &'static [u8]| async move {
            Ok::<_, BoxError>(Full::new(chunk))
        }));
    let mut body = service.clone().oneshot(b"chunk").await.unwrap();
    assert_eq!(bulkhead.in_flight(), 1, "the head is here, the body is not");
    assert!(service.clone().oneshot(b"chunk").await.is_err());
    body.frame().await.unwrap().unwrap();
    assert_eq!(bulkhead.in_flight(), 0, "that was the last frame");

    let body = service.clone().oneshot(b"chunk").await.unwrap();
    drop(body);
    assert_eq!(bulkhead.in_flight(), 0, "nobody reads on");
    let _empty = service.clone().oneshot(b"").await.unwrap();
    assert_eq!(bulkhead.in_flight(), 0, "there is nothing to read");
}

#[test]
#[should_panic(expected = "partitions or a queue")]
fn partitions_behind_a_queue_are_refused_where_they_are_written() {
    let _ = Bulkhead::new("orders", 2)
        .queue(1, SECOND)
        .partitions([("a", 0.5)]);
}

#[test]
#[should_panic(expected = "partitions or a queue")]
fn partitions_get_no_queue_at_run_time() {
    let bulkhead = Bulkhead::new("orders", 2).partitions([("a", 0.5)]);
    bulkhead.reconfigure(Settings::new(3));
    assert_eq!(bulkhead.partition("a").limit(), 2);
    bulkhead.reconfigure(Settings::new(3).queue(1, SECOND));
}

#[test]
#[should_panic(expected = "more than 1 together")]
fn shares_of_more_than_all_are_refused_where_they_are_written() {
    let _ = Bulkhead::new("orders", 2).partitions([("a", 0.5), ("b", 0.6)]);
}

#[test]
#[should_panic(expected = "lets nothing pass")]
fn a_bulkhead_of_no_slots_is_refused_where_it_is_written() {
    let _ = Bulkhead::new("orders", 0);
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    /// One of those inside or in the queue goes.
    Leave(prop::sample::Index),
    /// One of those inside or in the queue looks whether it is its turn.
    Look(prop::sample::Index),
    Resize(usize),
    Queue(usize),
    Order(Order),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Enter),
        3 => any::<prop::sample::Index>().prop_map(Step::Leave),
        2 => any::<prop::sample::Index>().prop_map(Step::Look),
        1 => (1..5usize).prop_map(Step::Resize),
        1 => (1..6usize).prop_map(Step::Queue),
        1 => prop_oneof![
            Just(Order::OldestFirst),
            Just(Order::NewestFirst),
            Just(Order::NewestFirstDropOldest),
        ]
        .prop_map(Step::Order),
    ]
}

/// What a caller holds: its wait, or the slot it led to.
enum Held {
    Wait(Spawn<Acquire>),
    Slot { _permit: Permit },
}

const DROPS: Order = Order::NewestFirstDropOldest;

proptest! {
    #[test]
    fn it_does_what_a_list_and_a_line_do(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _entered = runtime.enter();

        let bulkhead = Bulkhead::new("model", 2).queue(4, SECOND);
        let mut callers: Vec<Option<Held>> = Vec::new();
        let (mut limit, mut inside, mut line) = (2, Vec::new(), VecDeque::new());
        // So many in front came before the order was this one.
        let (mut length, mut order, mut earlier) = (4, Order::OldestFirst, 0);

        for step in steps {
            let present: Vec<usize> = inside.iter().chain(&line).copied().collect();
            match step {
                Step::Enter => {
                    let id = callers.len();
                    let mut wait = spawn(bulkhead.acquire());
                    if line.is_empty() && inside.len() < limit {
                        inside.push(id);
                    } else if line.len() < length || order == DROPS && earlier < line.len() {
                        if line.len() >= length {
                            let oldest: usize = line.pop_back().unwrap();
                            let Some(Held::Wait(mut oldest)) = callers[oldest].take() else {
                                panic!("it waits");
                            };
                            assert_ready_err!(oldest.poll());
                        }
                        let place = if order == Order::OldestFirst { line.len() } else { earlier };
                        line.insert(place, id);
                    } else {
                        assert_ready_err!(wait.poll());
                        continue;
                    }
                    callers.push(Some(Held::Wait(wait)));
                }
                Step::Leave(index) if !present.is_empty() => {
                    let id = *index.get(&present);
                    inside.retain(|&other| other != id);
                    earlier -= usize::from(line.iter().take(earlier).any(|&it| it == id));
                    line.retain(|&other| other != id);
                    callers[id] = None;
                }
                Step::Look(index) if !present.is_empty() => {
                    let id = *index.get(&present);
                    if let Some(Held::Wait(wait)) = &mut callers[id] {
                        match wait.poll() {
                            Poll::Ready(permit) => {
                                prop_assert!(inside.contains(&id));
                                callers[id] = Some(Held::Slot { _permit: permit.unwrap() });
                            }
                            Poll::Pending => prop_assert!(line.contains(&id)),
                        }
                    }
                }
                Step::Leave(_) | Step::Look(_) => {}
                Step::Resize(to) => {
                    limit = to;
                    bulkhead.resize(to);
                }
                Step::Queue(to) => {
                    length = to;
                    bulkhead.reconfigure(bulkhead.settings().queue(to, SECOND));
                }
                Step::Order(to) => {
                    if order != to {
                        (order, earlier) = (to, line.len());
                    }
                    bulkhead.reconfigure(bulkhead.settings().order(to));
                }
            }
            while inside.len() < limit {
                let Some(id) = line.pop_front() else { break };
                earlier = earlier.saturating_sub(1);
                inside.push(id);
            }
            prop_assert_eq!(bulkhead.in_flight(), inside.len());
            prop_assert_eq!(bulkhead.waiting(), line.len());
        }
    }
}
