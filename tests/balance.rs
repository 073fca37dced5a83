//! The balancer, through its public face, in paused time and with a seed.

// A test may panic, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::algo::ejection::Settings;
use buttress::balance::{Balance, InstanceView, NewEndpoint, Tried};
use buttress::discovery::{BoxFuture, Status, Watch};
use buttress::error::{Error, Reason};
use buttress::observe::{Event, Observe};
use buttress::{Instance, Outcome, clock, rng};
use tokio::time::{advance, sleep, timeout};
use tower::{Service, ServiceExt};

/// What an instance does with a call.
#[derive(Clone, Copy)]
enum Act {
    Answer(Duration),
    Fail(Duration),
    RefuseConnection,
    /// Never gets ready.
    Stuck,
    Hang,
    Panic,
}

const FAST: Act = Act::Answer(ms(5));
const FAIL: Act = Act::Fail(Duration::ZERO);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What the instances of a test do, by id, and how often each was called.
#[derive(Clone, Default)]
struct World {
    acts: Arc<Mutex<BTreeMap<String, Act>>>,
    calls: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl World {
    fn new<const N: usize>(acts: [(&str, Act); N]) -> Self {
        rng::seed(7);
        let world = Self::default();
        for (id, act) in acts {
            world.set(id, act);
        }
        world
    }

    fn set(&self, id: &str, act: Act) {
        self.acts.lock().unwrap().insert(id.into(), act);
    }

    fn calls(&self, id: &str) -> usize {
        self.calls.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    fn forget_calls(&self) {
        self.calls.lock().unwrap().clear();
    }

    fn watch(&self) -> Watch {
        let ids: Vec<_> = self.acts.lock().unwrap().keys().cloned().collect();
        Watch::fixed("orders", ids.into_iter().map(|id| instance(&id)))
    }

    fn balance(&self) -> Balance<Self> {
        Balance::new(self.watch(), self.clone())
    }
}

fn instance(id: &str) -> Instance {
    Instance::new(id, "10.0.0.1", 80)
}

impl NewEndpoint for World {
    type Service = Endpoint;

    fn new_endpoint(&self, instance: &Arc<Instance>) -> Endpoint {
        Endpoint {
            id: instance.id.clone(),
            world: self.clone(),
            is_ready: false,
        }
    }
}

struct Endpoint {
    id: String,
    world: World,
    is_ready: bool,
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            world: self.world.clone(),
            is_ready: false,
        }
    }
}

type Failure = Error<&'static str>;

impl Service<()> for Endpoint {
    type Response = String;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<String, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let act = self.world.acts.lock().unwrap()[&self.id];
        if let Act::RefuseConnection = act {
            self.count();
            return Poll::Ready(Err(Error::Inner("connection refused")));
        }
        if let Act::Stuck = act {
            self.count();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(self.is_ready, "the one made ready is called");
        self.count();
        let act = self.world.acts.lock().unwrap()[&self.id];
        let id = self.id.clone();
        Box::pin(async move {
            match act {
                Act::Answer(after) => {
                    sleep(after).await;
                    Ok(id)
                }
                Act::Fail(after) => {
                    sleep(after).await;
                    Err(Error::Inner("failed"))
                }
                Act::Hang | Act::Stuck => std::future::pending().await,
                Act::Panic => panic!("an instance's service panicked"),
                Act::RefuseConnection => unreachable!(),
            }
        })
    }
}

impl Endpoint {
    fn count(&self) {
        let mut calls = self.world.calls.lock().unwrap();
        *calls.entry(self.id.clone()).or_default() += 1;
    }
}

/// What the observer heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Ejected {
                service, instance, ..
            } => format!("{instance} of {service} is out"),
            Event::Returned { service, instance } => format!("{instance} of {service} is back"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

fn view<C>(balance: &Balance<World, C>, id: &str) -> InstanceView {
    let mut views = balance.instances().into_iter();
    views.find(|view| view.instance.id == id).expect("known")
}

/// One call after another, whatever comes of them.
async fn call<C>(balance: &Balance<World, C>, times: usize)
where
    C: buttress::Classify<String, Failure>,
{
    for _ in 0..times {
        let _ = balance.send((), None).await;
    }
}

/// Calls until `id` is ejected.
async fn eject(balance: &Balance<World>, id: &str) {
    for _ in 0..10_000 {
        call(balance, 1).await;
        if view(balance, id).ejected_until.is_some() {
            return;
        }
        // Its failures made it dear; only time brings it calls again.
        advance(secs(1)).await;
    }
    panic!("{id} was not ejected");
}

#[tokio::test(start_paused = true)]
async fn equal_instances_share_the_calls_evenly() {
    let world = World::new([("a", FAST), ("b", FAST), ("c", FAST), ("d", FAST)]);
    let balance = world.balance();
    call(&balance, 2_000).await;
    for id in ["a", "b", "c", "d"] {
        assert!(world.calls(id).abs_diff(500) < 75, "{}", world.calls(id));
    }
}

#[tokio::test(start_paused = true)]
async fn outstanding_calls_are_spread() {
    let world = World::new([("a", Act::Hang), ("b", Act::Hang), ("c", Act::Hang)]);
    let balance = world.balance();
    let calls: Vec<_> = (0..300).map(|_| balance.send((), None)).collect();
    for view in balance.instances() {
        assert!(view.in_flight.abs_diff(100) < 10, "{view:?}");
    }
    drop(calls);
    assert!(balance.instances().iter().all(|view| view.in_flight == 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_instance_gets_less() {
    let slow = Act::Answer(ms(200));
    let world = World::new([("a", FAST), ("b", FAST), ("slow", slow)]);
    let balance = world.balance();
    call(&balance, 1_000).await;
    assert!(world.calls("slow") < 50, "{}", world.calls("slow"));
    assert!(world.calls("slow") > 0, "it is tried now and then");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_became_fast_again_gets_its_share_back() {
    let world = World::new([("a", FAST), ("b", Act::Answer(secs(1)))]);
    let balance = world.balance();
    call(&balance, 100).await;
    world.set("b", FAST);
    advance(secs(60)).await;
    world.forget_calls();
    for _ in 0..100 {
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(balance.send((), None)))
            .collect();
        for call in calls {
            let _ = call.await;
        }
    }
    assert!(world.calls("b") > 300, "{}", world.calls("b"));
}

#[tokio::test(start_paused = true)]
async fn weights_hold_when_idle_and_when_busy() {
    let world = World::new([("light", FAST), ("heavy", FAST)]);
    let instances = [instance("light").weight(10), instance("heavy").weight(30)];
    let balance = Balance::new(Watch::fixed("orders", instances), world.clone());
    call(&balance, 2_000).await;
    let share = world.calls("heavy") as f64 / 2_000.0;
    assert!((0.65..0.85).contains(&share), "idle: {share}");

    let calls: Vec<_> = (0..400).map(|_| balance.send((), None)).collect();
    let heavy = view(&balance, "heavy").in_flight;
    assert!(heavy.abs_diff(300) < 20, "busy: {heavy}");
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn an_instance_of_weight_0_or_not_up_is_called_only_if_nobody_else_is_left() {
    let world = World::new([("up", FAST), ("zero", FAST), ("down", FAST)]);
    let zero = || instance("zero").weight(0);
    let down = || instance("down").status(Status::OutOfService);
    let all = Watch::fixed("orders", [down(), zero(), instance("up")]);
    call(&Balance::new(all, world.clone()), 20).await;
    assert_eq!(world.calls("up"), 20);

    let rest = Watch::fixed("orders", [down(), zero()]);
    call(&Balance::new(rest, world.clone()), 20).await;
    assert_eq!(world.calls("zero"), 20);

    let last = Watch::fixed("orders", [down()]);
    call(&Balance::new(last, world.clone()), 20).await;
    assert_eq!(world.calls("down"), 20);
}

#[tokio::test(start_paused = true)]
async fn a_fast_failing_instance_does_not_attract_the_traffic() {
    let world = World::new([("a", FAST), ("b", FAST), ("broken", FAIL)]);
    // Without ejection, so that the load alone must do it.
    let settings = Settings::default().max_share(0.0);
    let balance = world.balance().ejection(settings);
    call(&balance, 1_000).await;
    assert!(world.calls("broken") < 20, "{}", world.calls("broken"));
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_connection_fails_is_avoided() {
    let world = World::new([("a", FAST), ("b", Act::RefuseConnection)]);
    let balance = world.balance();
    call(&balance, 100).await;
    assert!(world.calls("b") < 8, "{}", world.calls("b"));
    assert_eq!(view(&balance, "b").in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_instance_loses_the_traffic_though_each_call_is_cancelled() {
    let world = World::new([("a", FAST), ("hangs", Act::Hang)]);
    let balance = world.balance();
    for _ in 0..200 {
        let _ = timeout(ms(500), balance.send((), None)).await;
    }
    assert!(world.calls("hangs") < 10, "{}", world.calls("hangs"));
    let view = view(&balance, "hangs");
    assert_eq!(view.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_canary_of_one_per_cent_does_not_block_the_rest() {
    let mut acts = [("canary", Act::Stuck); 100];
    let ids: Vec<_> = (1..100).map(|n| format!("instance {n}")).collect();
    for (act, id) in acts[1..].iter_mut().zip(&ids) {
        *act = (id, FAST);
    }
    let world = World::new(acts);
    let mut balance = world.balance();
    let mut answered = 0;
    for _ in 0..1_000 {
        balance.ready().await.unwrap();
        let answer = timeout(ms(500), balance.call(())).await;
        answered += usize::from(answer.is_ok());
    }
    // It was tried, and found wanting.
    assert!((990..1_000).contains(&answered), "{answered}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_instance_does_not_draw_calls_as_time_goes_by() {
    let world = World::new([("a", Act::Answer(ms(100))), ("hangs", Act::Hang)]);
    let balance = world.balance();
    for _ in 0..300 {
        tokio::spawn(balance.send((), None));
        sleep(secs(1)).await;
    }
    assert!(world.calls("hangs") < 10, "{}", world.calls("hangs"));
}

#[tokio::test(start_paused = true)]
async fn an_early_cancel_says_nothing() {
    let world = World::new([("a", Act::Answer(ms(50)))]);
    let balance = world.balance();
    call(&balance, 1).await;
    let before = view(&balance, "a").latency;
    assert!(timeout(ms(1), balance.send((), None)).await.is_err());
    // Only the millisecond passed.
    let after = view(&balance, "a").latency;
    assert!(after <= before && after > before.mul_f64(0.99));
}

#[tokio::test(start_paused = true)]
async fn looking_at_the_instances_changes_nothing() {
    let world = World::new([("a", FAST), ("b", Act::Answer(ms(80)))]);
    let balance = world.balance();
    call(&balance, 20).await;
    advance(secs(3)).await;
    let first: Vec<_> = balance.instances().iter().map(|v| v.latency).collect();
    for _ in 0..1_000 {
        let again: Vec<_> = balance.instances().iter().map(|v| v.latency).collect();
        assert_eq!(first, again);
    }
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_and_one_probe_brings_back() {
    let heard = Heard::default();
    let world = World::new([("a", FAST), ("b", FAIL)]);
    let balance = world.balance().observe(heard.clone());
    eject(&balance, "b").await;
    assert_eq!(world.calls("b"), 5);
    assert_eq!(heard.take(), ["b of orders is out"]);

    let until = view(&balance, "b").ejected_until.expect("ejected");
    let wait = until - clock::now();
    assert!((secs(7)..=secs(10)).contains(&wait), "{wait:?}");
    while clock::now() + ms(10) < until {
        call(&balance, 10).await;
    }
    assert_eq!(world.calls("b"), 5, "nobody calls it while it is out");

    world.set("b", Act::Answer(ms(20)));
    advance(ms(500)).await;
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(balance.send((), None)))
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(world.calls("b"), 6, "a single probe");
    for call in calls {
        let _ = call.await;
    }
    let back = view(&balance, "b");
    assert_eq!(heard.take(), ["b of orders is back"]);
    assert_eq!(back.ejected_until, None);
    assert!(back.latency <= ms(20), "as fast as its probe: {back:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ejection_lasts_longer_each_time_but_never_beyond_the_limit() {
    let world = World::new([("a", FAST), ("b", FAIL)]);
    let balance = world.balance();
    eject(&balance, "b").await;
    let mut nominal = secs(10);
    for _ in 0..12 {
        let until = view(&balance, "b").ejected_until.expect("ejected");
        let wait = until - clock::now();
        assert!(
            wait <= nominal && wait + ms(50) >= nominal.mul_f64(0.75),
            "{wait:?}"
        );
        nominal = (nominal * 2).min(secs(300));
        advance(wait).await;
        let calls = world.calls("b");
        while world.calls("b") == calls {
            call(&balance, 1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_makes_room_for_another() {
    let world = World::new([("a", FAST), ("b", FAIL)]);
    let balance = world.balance();
    eject(&balance, "b").await;
    world.set("b", Act::Hang);
    advance(secs(11)).await;
    let probe = tokio::spawn(balance.send((), None));
    tokio::task::yield_now().await;
    assert_eq!(world.calls("b"), 6);
    call(&balance, 20).await;
    assert_eq!(world.calls("b"), 6);

    world.set("b", FAST);
    advance(secs(11)).await;
    call(&balance, 1).await;
    assert_eq!(view(&balance, "b").ejected_until, None);
    probe.abort();
}

#[tokio::test(start_paused = true)]
async fn a_success_from_before_the_ejection_does_not_bring_back() {
    let world = World::new([("a", Act::Answer(secs(30))), ("b", Act::Answer(secs(5)))]);
    let balance = world.balance();
    let early: Vec<_> = (0..10)
        .map(|_| tokio::spawn(balance.send((), None)))
        .collect();
    tokio::task::yield_now().await;
    let begun = world.calls("b");
    assert!(begun > 0);
    world.set("b", FAIL);
    while view(&balance, "b").ejected_until.is_none() {
        let _ = timeout(ms(1), balance.send((), None)).await;
    }
    sleep(secs(6)).await;
    assert!(view(&balance, "b").ejected_until.is_some());
    assert!(view(&balance, "b").in_flight == 0);
    drop(early);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_half_is_ejected_and_calls_go_on() {
    let ids = ["a", "b", "c", "d", "e"];
    let world = World::new(ids.map(|id| (id, FAIL)));
    let balance = world.balance();
    for _ in 0..500 {
        call(&balance, 1).await;
        advance(ms(10)).await;
        let views = balance.instances();
        let ejected = views.iter().filter(|view| view.ejected_until.is_some());
        assert!(ejected.count() <= 2);
    }
    let calls: usize = ids.iter().map(|id| world.calls(id)).sum();
    assert_eq!(calls, 500);
}

#[tokio::test(start_paused = true)]
async fn the_only_instance_is_never_ejected() {
    let world = World::new([("a", FAIL)]);
    let balance = world.balance();
    call(&balance, 50).await;
    assert_eq!(world.calls("a"), 50);
    assert_eq!(view(&balance, "a").ejected_until, None);
}

#[tokio::test(start_paused = true)]
async fn if_all_are_ejected_any_is_called_and_a_success_brings_it_back() {
    let world = World::new([("a", FAIL), ("b", FAIL)]);
    let balance = world.balance().ejection(Settings::default().max_share(1.0));
    eject(&balance, "a").await;
    eject(&balance, "b").await;
    world.set("a", FAST);
    world.set("b", FAST);
    world.forget_calls();
    call(&balance, 40).await;
    assert_eq!(world.calls("a") + world.calls("b"), 40);
    let views = balance.instances();
    assert!(views.iter().any(|view| view.ejected_until.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_and_gives_its_place_back() {
    let world = World::new([("a", FAST), ("b", Act::Panic)]);
    let balance = world.balance();
    for _ in 0..10_000 {
        let _ = tokio::spawn(balance.send((), None)).await;
        advance(secs(1)).await;
        if view(&balance, "b").ejected_until.is_some() {
            break;
        }
    }
    let view = view(&balance, "b");
    assert!(view.ejected_until.is_some());
    assert_eq!(view.in_flight, 0);
    assert_eq!(world.calls("b"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_does_not_end_a_row_of_failures() {
    let world = World::new([("a", FAST), ("b", FAIL)]);
    let settings = Settings::default().consecutive_failures(2);
    let balance = world.balance().ejection(settings);
    let called = async |times| {
        while world.calls("b") < times {
            let _ = timeout(ms(50), balance.send((), None)).await;
            advance(secs(1)).await;
        }
    };
    called(1).await;
    world.set("b", Act::Hang);
    called(3).await;
    assert_eq!(view(&balance, "b").ejected_until, None);
    world.set("b", FAIL);
    called(4).await;
    assert!(view(&balance, "b").ejected_until.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_the_classifier_ignores_is_not_counted() {
    let world = World::new([("a", Act::Fail(ms(500))), ("b", Act::Fail(ms(500)))]);
    let ignore = |_: Result<&String, &Failure>| Outcome::Ignored;
    let balance = world.balance().classify(ignore);
    let before = view(&balance, "a").latency;
    call(&balance, 100).await;
    for view in balance.instances() {
        assert_eq!(view.ejected_until, None);
        assert!(view.latency <= before, "{view:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_call_goes_to_an_instance_not_yet_tried() {
    let world = World::new([("a", FAIL), ("b", FAIL), ("c", FAIL), ("d", FAST)]);
    for _ in 0..100 {
        let balance = world.balance();
        world.forget_calls();
        let tried = Arc::new(Tried::default());
        for _ in 0..4 {
            let _ = balance.send((), Some(&tried)).await;
        }
        for id in ["a", "b", "c", "d"] {
            assert_eq!(world.calls(id), 1);
        }
        // All were tried: any is better than none.
        let _ = balance.send((), Some(&tried)).await;
        assert_eq!(world.calls.lock().unwrap().values().sum::<usize>(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_instance_the_call_is_refused_by_name() {
    let world = World::new([]);
    let sent = world.balance().send((), None).await;
    let error = sent.expect_err("nobody there");
    let Error::Rejected(rejected) = error else {
        panic!("{error:?}")
    };
    assert_eq!(rejected.reason(), Reason::Unresolved);
    assert_eq!(rejected.name(), Some("orders"));
}

#[tokio::test(start_paused = true)]
async fn it_is_a_tower_service_that_clones_and_crosses_threads() {
    fn shared<T: Clone + Send + Sync>(balance: T) -> T {
        balance
    }
    let world = World::new([("a", FAST)]);
    let mut balance = shared(world.balance());
    poll_fn(|cx| balance.poll_ready(cx)).await.expect("ready");
    assert_eq!(balance.clone().oneshot(()).await.expect("answer"), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_is_lost_in_the_count_when_threads_meet() {
    let answered = Arc::new(AtomicUsize::new(0));
    let instances = (0..4).map(|id| instance(&format!("i{id}")));
    let new = |_: &Arc<Instance>| {
        tower::service_fn(|fails: bool| async move {
            tokio::task::yield_now().await;
            if fails {
                Err(Error::Inner("failed"))
            } else {
                Ok(())
            }
        })
    };
    let balance = Balance::new(Watch::fixed("orders", instances), new);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (balance, answered) = (balance.clone(), answered.clone());
            tokio::spawn(async move {
                for call in 0..2_000 {
                    let sent = balance.send(call % 7 == task, None);
                    if call % 5 != 0 {
                        let _ = sent.await;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(answered.load(Ordering::Relaxed), 8 * 1_600);
    assert!(balance.instances().iter().all(|view| view.in_flight == 0));
}
