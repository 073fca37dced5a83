//! A limit that processes share, on the real Redis of `REDIS_URL`. Where `scripts/test` runs them, the tests that trouble
//! the server have one of their own.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use buttress::algo::gcra::Limit;
use buttress::clock;
use buttress::error::Reason;
use buttress::observe::{Event, Observe};
use buttress::transport::redis::{Redis, SharedLimiter};
use buttress::{BoxError, Rejected};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tower::{Layer, ServiceExt, service_fn};
use watching::{real, unique};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A server, and a handle on it whose time-out a busy machine does not reach.
fn server(url: &str) -> Redis {
    Redis::new(url).unwrap().timeout(10 * SECOND)
}

async fn commands(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// A call that was let through: between these two moments.
type Taken = (SystemTime, SystemTime);

/// Asks as fast as it can.
async fn hammer(limiter: &SharedLimiter, until: Instant) -> Vec<Taken> {
    let mut taken = Vec::new();
    while clock::now() < until {
        let asked = clock::wall();
        if limiter.acquire(1).await.is_ok() {
            taken.push((asked, clock::wall()));
        }
    }
    taken
}

/// No span holds more than a burst and what the span is worth. A call that was asked for and answered within a span was
/// decided in it.
fn assert_within(rate: f64, burst: f64, taken: &[Taken]) {
    for &(from, _) in taken {
        let mut ends: Vec<_> = taken.iter().filter(|it| it.0 >= from).collect();
        ends.sort_by_key(|it| it.1);
        for (before, &&(_, to)) in ends.iter().enumerate() {
            let span = to.duration_since(from).unwrap().as_secs_f64();
            let calls = before as f64 + 1.0;
            assert!(
                calls <= burst + rate * span + 1e-3,
                "{calls} calls in {span} s"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_share_one_limit_exactly() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let name = unique("shared");
    let limit = Limit::new(200, SECOND).burst(20);
    let until = clock::now() + SECOND;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        // Each with a connection of its own.
        let limiter = SharedLimiter::new(name.as_str(), limit, &server(&url));
        tasks.push(tokio::spawn(async move { hammer(&limiter, until).await }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        let by_one = task.await.unwrap();
        assert!(!by_one.is_empty());
        taken.extend(by_one);
    }
    // Nothing is lost between them either.
    assert!(taken.len() >= 150, "{}", taken.len());
    assert_within(200.0, 20.0, &taken);
}

/// Not a test by itself: one of the processes of the next one.
#[tokio::test]
async fn one_of_several_processes() {
    let Ok(name) = std::env::var("SHARED_LIMIT") else {
        return;
    };
    let redis = server(&real("REDIS_URL").unwrap());
    let limiter = SharedLimiter::new(name, Limit::new(200, SECOND).burst(20), &redis);
    for (asked, answered) in hammer(&limiter, clock::now() + SECOND).await {
        let since = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_nanos()
        };
        println!("\ntaken {} {}", since(asked), since(answered));
    }
}

#[tokio::test]
async fn two_processes_share_one_limit_exactly() {
    if real("REDIS_URL").is_none() {
        return;
    }
    let name = unique("shared");
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_of_several_processes", "--nocapture"])
            .env("SHARED_LIMIT", &name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes = [start(), start()];
    let mut taken = Vec::new();
    for process in processes {
        let output: Output = tokio::task::spawn_blocking(|| process.wait_with_output().unwrap())
            .await
            .unwrap();
        let at =
            |nanos: &str| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.parse().unwrap());
        let before = taken.len();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            if let Some((asked, answered)) = line
                .strip_prefix("taken ")
                .and_then(|it| it.split_once(' '))
            {
                taken.push((at(asked), at(answered)));
            }
        }
        assert!(taken.len() > before, "each has some");
    }
    assert!(taken.len() >= 150, "{}", taken.len());
    assert_within(200.0, 20.0, &taken);
}

#[tokio::test]
async fn a_refusal_says_exactly_when_to_come_back() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let limit = Limit::new(1, 10 * SECOND);
    for _ in 0..20 {
        let limiter = SharedLimiter::new(unique("exact"), limit, &server(&url));
        let begin = clock::now();
        limiter.acquire(1).await.unwrap();
        let rejected = limiter.acquire(1).await.unwrap_err();
        let end = clock::now();
        assert_eq!(rejected.reason(), Reason::RateLimited);
        // By no more than what the two questions can have been apart.
        let wait = rejected.wait_hint().unwrap();
        assert!(wait <= 10 * SECOND, "{wait:?}");
        assert!(wait >= 10 * SECOND - (end - begin), "{wait:?}");
    }
}

#[tokio::test]
async fn who_comes_back_when_it_was_told_to_is_let_through() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let limit = Limit::new(20, SECOND).burst(1);
    let limiter = SharedLimiter::new(unique("exact"), limit, &server(&url));
    limiter.acquire(1).await.unwrap();
    for _ in 0..10 {
        let rejected = limiter.acquire(1).await.unwrap_err();
        clock::sleep(rejected.wait_hint().unwrap()).await;
        limiter.acquire(1).await.unwrap();
    }
}

#[tokio::test]
async fn keys_are_apart_and_vanish_when_they_are_paid() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let prefix = unique("keys");
    let redis = server(&url).prefix(prefix.as_str());
    let limit = Limit::new(4, SECOND).burst(2);
    let limiter = SharedLimiter::per_key("tenants:all", limit, 100, &redis);
    let service = limiter
        .layer_by(|tenant: &u64| *tenant)
        .layer(service_fn(|_| async { Ok::<_, BoxError>(()) }));
    for (tenant, passes) in [(1, true), (2, true), (1, true), (1, false), (2, true)] {
        let result = service.clone().oneshot(tenant).await;
        assert_eq!(result.is_ok(), passes, "{tenant}");
    }
    let mut commands = commands(&url).await;
    let mut keys: Vec<String> = commands.keys(format!("{prefix}:rate:*")).await.unwrap();
    keys.sort();
    assert_eq!(
        keys,
        [1, 2].map(|it| format!("{prefix}:rate:tenants%3Aall:{it}"))
    );
    clock::sleep(700 * MS).await;
    let keys: Vec<String> = commands.keys(format!("{prefix}:*")).await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn who_waits_goes_in_the_order_of_asking_whichever_process_it_is() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let (name, mut commands) = (unique("line"), commands(&url).await);
    let limit = Limit::new(2, SECOND).burst(1);
    let limiter = || SharedLimiter::new(name.as_str(), limit, &server(&url)).wait(2 * SECOND);
    let limiters = [limiter(), limiter()];
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    let began = clock::now();
    let mut debt = None::<String>;
    for i in 0..4 {
        let (limiter, order) = (limiters[i % 2].clone(), Arc::clone(&order));
        waiting.push(tokio::spawn(async move {
            limiter.acquire(1).await.unwrap();
            order.lock().unwrap().push(i);
        }));
        // Until the server was asked.
        let before = debt.take();
        while debt.is_none() || debt == before {
            clock::sleep(MS).await;
            let key = format!("buttress:rate:{name}");
            debt = commands.get(key).await.unwrap();
        }
    }
    for waiter in waiting {
        waiter.await.unwrap();
    }
    assert!(clock::now() - began >= 3 * SECOND / 2);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn who_gives_up_waiting_gives_its_permits_back() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let limit = Limit::new(1, SECOND).burst(1);
    let limiter = SharedLimiter::new(unique("gives"), limit, &server(&url)).wait(60 * SECOND);
    limiter.acquire(1).await.unwrap();
    for _ in 0..20 {
        let gives_up = tokio::time::timeout(50 * MS, limiter.acquire(3));
        gives_up.await.unwrap_err();
        clock::sleep(5 * MS).await;
    }
    // Sixty permits were promised and not used.
    let began = clock::now();
    limiter.acquire(1).await.unwrap();
    assert!(clock::now() - began <= SECOND);
}

/// What a listener heard of the server.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let mut commands = commands(&url).await;
    let user = unique("user");
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg(&user).arg("on").arg(">right-one");
    acl.arg("~*").arg("+@all");
    acl.exec_async(&mut commands).await.unwrap();
    let with = |password: &str| url.replace("redis://", &format!("redis://{user}:{password}@"));

    let heard = Heard::default();
    let wrong = server(&with("wrong-one")).observe(heard.clone());
    let limit = Limit::new(1, SECOND);
    let limiter = SharedLimiter::new(unique("denied"), limit, &wrong).refuse_alone();
    let rejected = limiter.acquire(1).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::StoreUnavailable);
    let shown = format!("{} {rejected:?} {wrong:?} {limiter:?}", heard.text());
    assert!(shown.contains("authentication failed"), "{shown}");
    assert!(!shown.contains("wrong-one"), "{shown}");

    let right = server(&with("right-one"));
    let limiter = SharedLimiter::new(unique("let-in"), limit, &right).refuse_alone();
    limiter.acquire(1).await.unwrap();
    redis::cmd("ACL")
        .arg("DELUSER")
        .arg(&user)
        .exec_async(&mut commands)
        .await
        .unwrap();
}

/// A server of the test's own, to trouble.
struct Own {
    state: tempfile::TempDir,
    url: String,
}

impl Own {
    /// None where `scripts/servers` is not at work.
    fn start() -> Option<Self> {
        real("REDIS_URL")?;
        real("BUTTRESS_SERVERS_STATE")?;
        let state = tempfile::tempdir().unwrap();
        let mut own = Self {
            state,
            url: String::new(),
        };
        let output = own.servers("start");
        own.url = output.trim().strip_prefix("REDIS_URL=").unwrap().to_owned();
        Some(own)
    }

    fn servers(&self, verb: &str) -> String {
        let output = Command::new("scripts/servers")
            .args([verb, "redis"])
            .env("BUTTRESS_SERVERS_STATE", self.state.path())
            .env_remove("REDIS_URL")
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{verb}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.state.path().join("redis/pid")).unwrap();
        let sent = Command::new("kill").args([signal, pid.trim()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.servers("stop");
    }
}

/// Calls one after the other until `done`, each of which must end within `longest`. How many were let through.
async fn traffic(limiter: &SharedLimiter, longest: Duration, done: impl Fn() -> bool) -> usize {
    let (began, mut passed) = (clock::now(), 0);
    while !done() {
        let asked = clock::now();
        passed += usize::from(limiter.acquire(1).await.is_ok());
        let took = clock::now() - asked;
        assert!(took <= longest, "a call was held for {took:?}");
        assert!(clock::now() - began < 30 * SECOND, "not done in 30 s");
        clock::sleep(MS).await;
    }
    passed
}

#[tokio::test]
async fn a_crash_in_mid_traffic_is_bridged_and_the_limit_is_shared_again_after_the_restart() {
    let Some(own) = Own::start() else {
        return;
    };
    let heard = Heard::default();
    let redis = Redis::new(&own.url)
        .unwrap()
        .timeout(SECOND)
        .observe(heard.clone());
    let limiter =
        SharedLimiter::new("crash", Limit::new(100, SECOND).burst(10), &redis).processes(2);
    let half_a_second = |from: Instant| move || clock::now() - from > SECOND / 2;
    traffic(&limiter, 2 * SECOND, half_a_second(clock::now())).await;
    assert!(redis.is_up());

    own.servers("kill");
    let began = clock::now();
    let passed = traffic(&limiter, 2 * SECOND, half_a_second(began)).await;
    assert!(!redis.is_up());
    // Its share: half of each.
    let most = 5.0 + 50.0 * (clock::now() - began).as_secs_f64();
    assert!(
        passed >= 20 && passed as f64 <= most + 1.0,
        "{passed} of {most}"
    );
    assert!(heard.text().contains("StoreFailed"), "{}", heard.text());

    own.servers("restart");
    traffic(&limiter, 2 * SECOND, || redis.is_up()).await;
    assert!(heard.text().contains("StoreRecovered"));
    let began = clock::now();
    let other = SharedLimiter::new(
        "crash",
        Limit::new(100, SECOND).burst(10),
        &server(&own.url),
    );
    let (a, b) = tokio::join!(
        traffic(&limiter, 2 * SECOND, half_a_second(began)),
        traffic(&other, 2 * SECOND, half_a_second(began)),
    );
    let most = 10.0 + 100.0 * (clock::now() - began).as_secs_f64();
    assert!((a + b) as f64 <= most + 1.0, "{a} and {b} of {most}");
}

#[tokio::test]
async fn a_server_that_stands_still_holds_nobody_and_is_found_again() {
    let Some(own) = Own::start() else {
        return;
    };
    let heard = Heard::default();
    let redis = Redis::new(&own.url)
        .unwrap()
        .timeout(SECOND)
        .observe(heard.clone());
    let limiter = SharedLimiter::new("still", Limit::new(1_000, SECOND), &redis);
    limiter.acquire(1).await.unwrap();
    own.signal("-STOP");
    let asked = clock::now();
    let held: Vec<_> = (0..10).map(|_| tokio::spawn(limiter.acquire(1))).collect();
    for call in held {
        call.await.unwrap().unwrap();
    }
    let took = clock::now() - asked;
    assert!((SECOND..2 * SECOND).contains(&took), "{took:?}");
    // From then on nobody waits, however often the server is tried.
    let began = clock::now();
    traffic(&limiter, SECOND, || clock::now() - began > 5 * SECOND).await;
    assert!(heard.text().contains("no answer in time"));
    own.signal("-CONT");
    traffic(&limiter, SECOND, || redis.is_up()).await;
    assert!(heard.text().contains("StoreRecovered"));
}

#[tokio::test]
async fn a_layer_of_it_refuses_as_a_rate_limit_does() {
    let Some(url) = real("REDIS_URL") else {
        return;
    };
    let name = unique("layer");
    let limiter = SharedLimiter::new(name.as_str(), Limit::new(1, 60 * SECOND), &server(&url));
    let inner = service_fn(|()| async { Ok::<_, BoxError>(()) });
    let (one, two) = (limiter.layer().layer(inner), limiter.layer().layer(inner));
    one.oneshot(()).await.unwrap();
    let error = two.oneshot(()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert!(rejected.is_rate_limited());
    assert_eq!(
        (rejected.layer(), rejected.name()),
        ("rate limit", Some(&*name))
    );
    let wait = rejected.wait_hint().unwrap();
    assert!(wait > 50 * SECOND && wait <= 60 * SECOND);
}
