//! A limit that processes share, without its server: gone, hung, or hostile.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::gcra::Limit;
use buttress::error::Reason;
use buttress::observe::{Event, Observe, Observer};
use buttress::transport::redis::{Redis, SharedLimiter};
use buttress::{BoxError, Deadline, Rejected, clock, rng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// The URL of a server that does not listen.
async fn gone() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("redis://{}", listener.local_addr().unwrap())
}

/// The URL of a server that gives `answer` to each command, or nothing at all.
async fn says(answer: Option<fn(&str) -> &'static str>, credentials: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let Some(answer) = answer else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    for command in text.split('*').skip(1) {
                        stream.write_all(answer(command).as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    format!("redis://{credentials}{address}")
}

/// What a listener heard, in words.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observe for Heard {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_server_a_process_goes_by_its_share_and_says_so() {
    let heard = Heard::default();
    let redis = Redis::new(&gone().await).unwrap().observe(heard.clone());
    let limit = Limit::new(8, SECOND);
    let limiter = SharedLimiter::new("geocoder", limit, &redis).processes(4);
    let service = limiter
        .layer()
        .layer(service_fn(|()| async { Ok::<_, BoxError>(()) }));
    for _ in 0..2 {
        service.clone().oneshot(()).await.unwrap();
    }
    let error = service.clone().oneshot(()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.reason(), Reason::RateLimited);
    assert_eq!(rejected.name(), Some("geocoder"));
    assert!(rejected.wait_hint().is_some_and(|it| it <= SECOND / 2));
    assert!(!redis.is_up());
    let heard = heard.all();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("StoreFailed") && heard[0].contains(redis.name()));
}

#[tokio::test(start_paused = true)]
async fn without_its_server_each_key_has_its_own_share() {
    let redis = Redis::new(&gone().await).unwrap();
    let limit = Limit::new(2, SECOND);
    let limiter = SharedLimiter::per_key("tenants", limit, 100, &redis);
    let service = limiter
        .layer_by(|tenant: &&'static str| *tenant)
        .cost(|_: &&'static str| 2)
        .layer(service_fn(|_| async { Ok::<_, BoxError>(()) }));
    for (tenant, passes) in [("a", true), ("b", true), ("a", false), ("b", false)] {
        let result = service.clone().oneshot(tenant).await;
        assert_eq!(result.is_ok(), passes, "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn how_long_callers_may_wait_changes_while_calls_flow() {
    let redis = Redis::new(&gone().await).unwrap();
    let limiter = SharedLimiter::new("geocoder", Limit::new(1, SECOND), &redis);
    limiter.acquire(1).await.unwrap();
    assert!(limiter.acquire(1).await.is_err());
    limiter.set_wait(SECOND);
    assert_eq!(limiter.longest_wait(), SECOND);
    limiter.acquire(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_told_when_to_come_back_asks_nobody_until_then() {
    let overloaded = |wait| move |_: Result<&u32, &BoxError>| buttress::Outcome::Overload(wait);
    let redis = Redis::new(&gone().await).unwrap();
    let limiter = SharedLimiter::per_key("hosts", Limit::new(100, SECOND), 10, &redis);
    let backend = || service_fn(|host: u32| async move { Ok::<_, BoxError>(host) });
    let layer = limiter.layer_by(|host: &u32| *host);
    let told = layer
        .clone()
        .classify(overloaded(Some(3 * SECOND)))
        .layer(backend());
    told.clone().oneshot(1).await.unwrap();

    let error = told.clone().oneshot(1).await.unwrap_err();
    let refusal = Rejected::find(&*error).unwrap();
    assert_eq!(refusal.reason(), Reason::RateLimited);
    assert_eq!(refusal.wait_hint(), Some(3 * SECOND));
    layer.layer(backend()).oneshot(2).await.unwrap();

    // Who may wait comes back then, and no sooner.
    let began = clock::now();
    let patient = limiter.clone().wait(4 * SECOND);
    patient.acquire_for(1, 1).await.unwrap();
    assert_eq!(clock::now() - began, 3 * SECOND);

    // A word without a time is heard, and no permits are taken from others for it.
    let told = limiter
        .layer_by(|host: &u32| *host)
        .classify(overloaded(None));
    let told = told.layer(backend());
    told.clone().oneshot(3).await.unwrap();
    told.oneshot(3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_share_follows_the_limit() {
    let redis = Redis::new(&gone().await).unwrap();
    let limiter = SharedLimiter::new("geocoder", Limit::new(2, SECOND), &redis).processes(2);
    limiter.reconfigure(Limit::new(20, SECOND));
    let mut passed = 0;
    while limiter.acquire(1).await.is_ok() {
        passed += 1;
    }
    assert!((8..=10).contains(&passed), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn one_that_refuses_alone_says_when_the_server_is_tried_again() {
    let heard = Heard::default();
    let redis = Redis::new(&gone().await).unwrap();
    let limiter = SharedLimiter::new("geocoder", Limit::new(8, SECOND), &redis)
        .refuse_alone()
        .observe(heard.clone());
    let rejected = limiter.acquire(1).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::StoreUnavailable);
    assert!(rejected.never_sent());
    assert!(rejected.wait_hint().is_some_and(|it| it <= 300 * MS));
    assert_eq!(heard.all().len(), 1);
    limiter.acquire(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_nobody_for_longer_than_the_time_out() {
    let url = says(None, "").await;
    let redis = Redis::new(&url).unwrap().timeout(50 * MS);
    let limiter = SharedLimiter::new("geocoder", Limit::new(100, SECOND), &redis);
    let began = clock::now();
    let (a, b) = tokio::join!(limiter.acquire(1), limiter.acquire(1));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(clock::now() - began, 50 * MS);
    // Who comes later is not held at all.
    for _ in 0..10 {
        limiter.acquire(1).await.unwrap();
    }
    assert_eq!(clock::now() - began, 50 * MS);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_server_past_the_deadline() {
    let redis = Redis::new(&says(None, "").await).unwrap();
    let limiter = SharedLimiter::new("geocoder", Limit::new(100, SECOND), &redis);
    let began = clock::now();
    let call = Deadline::within(10 * MS).scope(limiter.acquire(1));
    let rejected = call.await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::DeadlineExceeded);
    assert!(rejected.never_sent());
    assert_eq!(clock::now() - began, 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_tried_in_jittered_and_growing_waits() {
    #[derive(Clone, Default)]
    struct Waits(Arc<Mutex<Vec<Duration>>>);
    impl Observe for Waits {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::StoreFailed { wait, .. } = event {
                self.0.lock().unwrap().push(*wait);
            }
        }
    }
    rng::seed(7);
    let waits = Waits::default();
    let redis = Redis::new(&gone().await).unwrap().observe(waits.clone());
    let limiter = SharedLimiter::new("geocoder", Limit::new(1000, SECOND), &redis);
    for _ in 0..6_000 {
        limiter.acquire(1).await.unwrap();
        clock::sleep(20 * MS).await;
    }
    let waits = waits.0.lock().unwrap().clone();
    // Two minutes hold about 120 / 2.6 of them, in the mean of 100 ms and 5 s.
    assert!((20..80).contains(&waits.len()), "{}", waits.len());
    assert!(waits[0] <= 300 * MS);
    assert!(waits.iter().all(|it| (100 * MS..=5 * SECOND).contains(it)));
    assert!(waits.iter().any(|it| *it > 3 * SECOND));
    assert!(waits.windows(2).all(|pair| pair[0] != pair[1]));
}

#[tokio::test]
async fn the_password_is_shown_nowhere() {
    const SECRET: &str = "hunter-2";
    let heard = Heard::default();
    let observer = Observer::new(heard.clone());
    let answers: [fn(&str) -> &'static str; 3] = [
        |_| "-WRONGPASS hunter-2 is not it\r\n",
        |command| match command.contains("EVAL") {
            true => "-ERR whoever sends hunter-2 runs no scripts\r\n",
            false => "+OK\r\n",
        },
        |_| "$3\r\nhunter-2\r\n",
    ];
    for answer in answers {
        let url = says(Some(answer), "tester:hunter-2@").await;
        let redis = Redis::new(&url).unwrap().observe(observer.clone());
        let limiter = SharedLimiter::new("geocoder", Limit::new(1, SECOND), &redis)
            .refuse_alone()
            .observe(observer.clone());
        let error = limiter.acquire(1).await.unwrap_err();
        let layer = limiter.layer();
        for shown in [
            format!("{redis:?} {limiter:?} {layer:?} {:?}", limiter.acquire(1)),
            format!("{} {error} {error:?} {error:#?}", redis.name()),
        ] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
    let heard = heard.all();
    assert!(heard.iter().any(|it| it.contains("StoreFailed")));
    for event in heard {
        assert!(!event.contains(SECRET), "{event}");
    }
    for url in [
        "redis://u:hunter-2@",
        "redis://u:hunter-2@host:port",
        "http://u:hunter-2@h",
    ] {
        let error = Redis::new(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_burst_can_bear_is_refused_without_asking() {
    let redis = Redis::new(&says(None, "").await).unwrap();
    let limiter = SharedLimiter::new("geocoder", Limit::new(5, SECOND), &redis);
    let rejected = limiter.acquire(6).await.unwrap_err();
    let reason = Reason::CostAboveBurst { cost: 6, burst: 5 };
    assert_eq!((rejected.reason(), rejected.wait_hint()), (reason, None));
    // One that may wait can take them ahead, and asks.
    let patient = limiter.clone().wait(SECOND / 5);
    assert_pending!(spawn(patient.acquire(6)).poll());
    let rejected = patient.acquire(7).await.unwrap_err();
    assert_eq!(
        rejected.reason(),
        Reason::CostAboveBurst { cost: 7, burst: 5 }
    );
}

#[test]
fn limits_that_cannot_be_shared_are_refused_where_they_are_written() {
    let redis = Redis::new("redis://localhost").unwrap();
    for limit in [
        Limit::new(1, SECOND).in_steps(),
        Limit::new(1, SECOND).warm_up(SECOND),
        Limit::new(1, SECOND).sliding(),
        Limit::new(1, 86_400 * SECOND).burst(40_000),
    ] {
        let make = AssertUnwindSafe(|| SharedLimiter::new("geocoder", limit, &redis));
        let made = catch_unwind(make);
        assert!(made.is_err(), "{limit:?}");
    }
}
