//! Families of bulkheads, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::clock;
use buttress::error::{BoxError, Reason, Rejected};
use buttress::layers::bulkhead::{Bulkheads, Order, Permit, Settings};
use buttress::observe::{Event, Observe};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A call for a tenant: how long it works.
#[derive(Clone, Copy)]
struct For(&'static str, Duration);

fn tenants(settings: Settings, most: usize) -> Bulkheads<&'static str> {
    Bulkheads::new("tenants", settings, most)
}

fn users(limit: usize, most: usize) -> Bulkheads<u32> {
    Bulkheads::new("users", Settings::new(limit), most)
}

fn service(
    bulkheads: &Bulkheads<&'static str>,
) -> impl Service<For, Response = (), Error = BoxError, Future: Send> + Clone + use<> {
    let works = service_fn(|For(_, time)| async move {
        clock::sleep(time).await;
        Ok(())
    });
    bulkheads.layer(|request: &For| request.0).layer(works)
}

fn take(bulkheads: &Bulkheads<u32>, key: u32) -> Permit {
    let mut acquired = spawn(bulkheads.acquire(key));
    assert_ready_ok!(acquired.poll())
}

#[tokio::test(start_paused = true)]
async fn one_key_that_is_full_takes_nothing_of_another() {
    let bulkheads = tenants(Settings::new(1), 100);
    let mut service = service(&bulkheads);
    let held = service.call(For("a", SECOND));
    let error = service.call(For("a", SECOND)).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.reason(), Reason::Full { limit: 1 });
    assert_eq!(
        (rejected.layer(), rejected.name()),
        ("bulkhead", Some("tenants/a"))
    );
    service.call(For("b", SECOND)).await.unwrap();
    held.await.unwrap();
    service.call(For("a", SECOND)).await.unwrap();
    assert_eq!(bulkheads.keys(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_is_made_for_its_first_call_and_shared_by_all_layers_and_clones() {
    let bulkheads = tenants(Settings::new(1), 100);
    let (mut one, other) = (service(&bulkheads), service(&bulkheads.clone()));
    assert!(bulkheads.find(&"a").is_none());
    let _held = one.call(For("a", SECOND));
    assert_eq!(bulkheads.find(&"a").unwrap().in_flight(), 1);
    other.oneshot(For("a", SECOND)).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_queue_its_wait_and_its_order_are_those_of_each_key() {
    let settings = Settings::new(1).queue(2, SECOND).order(Order::NewestFirst);
    let bulkheads = tenants(settings, 100);
    let held = ["a", "b"].map(|key| bulkheads.acquire(key));
    let mut first = spawn(bulkheads.acquire("a"));
    let mut second = spawn(bulkheads.acquire("a"));
    let mut third = spawn(bulkheads.acquire("a"));
    let other = bulkheads.acquire("b");
    let full = assert_ready_err!(third.poll()).reason();
    assert_eq!(full, Reason::QueueFull { limit: 2 });
    assert_pending!(first.poll());
    let [a, _b] = held;
    drop(a.await.unwrap());
    let newest = assert_ready_ok!(second.poll());
    let late = first.await.unwrap_err().reason();
    assert_eq!(late, Reason::WaitedTooLong { after: SECOND });
    assert!(other.await.is_err());
    drop(newest);
}

#[tokio::test(start_paused = true)]
async fn each_bulkhead_can_be_read_listed_and_steered_by_its_key() {
    let bulkheads = users(2, 100);
    let _held = [take(&bulkheads, 1), take(&bulkheads, 1)];
    bulkheads.bulkhead(2).resize(5);
    bulkheads.find(&1).unwrap().resize(3);
    let _third = take(&bulkheads, 1);

    let mut all = Vec::new();
    bulkheads.each(|key, it| all.push((*key, it.name().to_owned(), it.in_flight(), it.limit())));
    all.sort();
    let wanted = [
        (1, "users/1".to_owned(), 3, 3),
        (2, "users/2".to_owned(), 0, 5),
    ];
    assert_eq!(all, wanted);
    assert_eq!(bulkheads.name(), "users");
}

#[tokio::test(start_paused = true)]
async fn a_key_may_have_settings_of_its_own_which_are_asked_for_once() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&asked);
    let limit = move |service: &&str| {
        list.lock().unwrap().push(service.to_string());
        match *service {
            "orders" => Settings::new(50),
            _ => Settings::new(5).queue(1, SECOND),
        }
    };
    let bulkheads = Bulkheads::new_by("services", limit, 100);
    let limits = |keys: [&'static str; 3]| keys.map(|key| bulkheads.bulkhead(key).limit());
    for _ in 0..2 {
        assert_eq!(limits(["orders", "reports", "prices"]), [50, 5, 5]);
    }
    assert_eq!(*asked.lock().unwrap(), ["orders", "reports", "prices"]);
}

#[tokio::test(start_paused = true)]
async fn other_settings_reach_the_bulkheads_that_are_there_and_those_to_come() {
    let bulkheads = users(1, 100);
    let held = take(&bulkheads, 1);
    let settings = Settings::new(1).queue(1, SECOND);
    bulkheads.reconfigure(settings);
    let waits = bulkheads.acquire(1);
    for key in [1, 2] {
        assert_eq!(bulkheads.bulkhead(key).settings(), settings);
    }
    bulkheads.reconfigure_by(|key| Settings::new(*key as usize));
    for key in [1, 2, 3] {
        assert_eq!(bulkheads.bulkhead(key).limit(), key as usize);
    }
    drop(held);
    drop(waits.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_and_those_in_use_are_not() {
    let bulkheads = users(2, 10_000);
    let _held = take(&bulkheads, u32::MAX);
    for key in 0..10_000 {
        drop(take(&bulkheads, u32::MAX - 1));
        drop(take(&bulkheads, key));
        clock::sleep(SECOND).await;
        assert!(bulkheads.keys() < 1200, "{} after {key}", bulkheads.keys());
    }
    let mut all = 0;
    bulkheads.each(|_, _| all += 1);
    assert_eq!(all, 61);
    assert_eq!(bulkheads.find(&u32::MAX).unwrap().in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_waited_for_held_or_steered_stays_though_there_are_too_many() {
    let bulkheads = Bulkheads::new("users", Settings::new(1).queue(1, 86_400 * SECOND), 2);
    let taken = take(&bulkheads, 0);
    let mut waits = spawn(bulkheads.acquire(0));
    let _second = take(&bulkheads, 1);
    let held = bulkheads.bulkhead(2);
    bulkheads.bulkhead(3).resize(7);
    for key in 100..200 {
        drop(take(&bulkheads, key));
        clock::sleep(60 * SECOND).await;
        assert!(bulkheads.keys() <= 5);
    }
    let resized = |key| bulkheads.find(&key).map(|it| it.limit());
    assert_eq!(resized(3), Some(7));
    held.resize(9);
    assert_eq!(resized(2), Some(9));
    drop(taken);
    drop(assert_ready_ok!(waits.poll()));
    assert_eq!(bulkheads.find(&1).unwrap().in_flight(), 1);

    // What goes by the settings of the family again may go.
    drop(held);
    bulkheads.reconfigure(Settings::new(1));
    clock::sleep(60 * SECOND).await;
    bulkheads.each(|key, _| assert_eq!(*key, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_is_bounded_and_the_one_unused_for_longest_goes_first() {
    for most in [2, 7, 1000] {
        let bulkheads = users(1, most);
        for key in 0..3000 {
            drop(take(&bulkheads, key));
            assert!(bulkheads.keys() <= most);
        }
    }
    let bulkheads = users(1, 8);
    for key in (0..8).chain([0, 100]) {
        drop(take(&bulkheads, key));
        clock::sleep(SECOND).await;
    }
    let there = |key| bulkheads.find(&key).is_some();
    assert!(!there(1));
    assert!([0, 2, 3, 4, 5, 6, 7, 100].into_iter().all(there));
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_and_panics_give_the_slot_of_their_key_back() {
    let bulkheads = tenants(Settings::new(1), 100);
    drop(service(&bulkheads).call(For("a", SECOND)));
    let bug = service_fn(|_: For| async { panic!("the peer's client has a bug") });
    let panics = bulkheads.layer(|request: &For| request.0).layer(bug);
    let joined: Result<Result<(), BoxError>, _> =
        tokio::spawn(panics.oneshot(For("a", SECOND))).await;
    assert!(joined.unwrap_err().is_panic());
    assert_eq!(bulkheads.find(&"a").unwrap().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_can_be_kept_with_the_response() {
    let bulkheads = tenants(Settings::new(1), 100);
    let answer = service_fn(|_: For| async { Ok::<_, BoxError>(7) });
    let service = bulkheads
        .layer(|request: &For| request.0)
        .hold(|answer: i32, permit: Permit| (answer, permit))
        .layer(answer);
    let (answer, _permit) = service.clone().oneshot(For("a", SECOND)).await.unwrap();
    assert_eq!(answer, 7);
    assert_eq!(bulkheads.find(&"a").unwrap().in_flight(), 1);
    assert!(service.clone().oneshot(For("a", SECOND)).await.is_err());
    assert!(service.oneshot(For("b", SECOND)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_which_key_was_refused_and_may_ask_the_family() {
    #[derive(Default)]
    struct Reads {
        bulkheads: Mutex<Option<Bulkheads<u32>>>,
        heard: Mutex<Vec<String>>,
    }
    impl Observe for Reads {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                let bulkheads = self.bulkheads.lock().unwrap().clone().expect("set");
                let line = format!("{rejected}, of {} keys", bulkheads.keys());
                self.heard.lock().unwrap().push(line);
            }
        }
    }
    let reads = Arc::new(Reads::default());
    let bulkheads = users(1, 100).observe(Arc::clone(&reads));
    *reads.bulkheads.lock().unwrap() = Some(bulkheads.clone());
    let _held = take(&bulkheads, 1);
    bulkheads.acquire(1).await.unwrap_err();
    assert_eq!(
        *reads.heard.lock().unwrap(),
        ["bulkhead `users/1` is full: its limit is 1 outstanding, of 1 keys"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_each_key_holds_between_threads() {
    static INSIDE: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];
    let settings = Settings::new(2).queue(1000, 60 * SECOND);
    let bulkheads = Bulkheads::new("users", settings, 5);
    let inner = service_fn(|key: usize| async move {
        assert!(INSIDE[key].fetch_add(1, Ordering::SeqCst) < 2);
        tokio::task::yield_now().await;
        INSIDE[key].fetch_sub(1, Ordering::SeqCst);
        Ok::<_, BoxError>(())
    });
    let service = bulkheads.layer(|key: &usize| *key).layer(inner);
    let calls: Vec<_> = (0..1000)
        .map(|call| tokio::spawn(service.clone().oneshot(call % 5)))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(bulkheads.keys(), 5);
}

#[test]
#[should_panic(expected = "a family of no keys has no bulkhead")]
fn a_family_of_no_keys_panics() {
    let _ = users(1, 0);
}

const SECOND: Duration = Duration::from_secs(1);
