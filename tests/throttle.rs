//! The throttle through its public face, in paused time.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::throttle::Throttle as Settings;
use buttress::error::Reason;
use buttress::layers::throttle::Throttle;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Outcome, Rejected, rng};
use tokio::time::{advance, timeout};
use tower::{Service, ServiceExt, service_fn};

/// A peer that accepts the first `room` calls of each second, and the calls that reached it.
fn peer(
    room: u32,
) -> (
    impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone,
    Arc<AtomicU32>,
) {
    let reached = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&reached);
    let service = service_fn(move |()| {
        let accepted = counter.fetch_add(1, Ordering::Relaxed) < room;
        async move {
            if accepted {
                Ok(())
            } else {
                Err("quota".into())
            }
        }
    });
    (service, reached)
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_sent_about_twice_what_it_accepts() {
    rng::seed(3);
    let (peer, reached) = peer(10);
    let throttle = Throttle::new("orders", Settings::default());
    let service = tower::Layer::layer(&throttle.layer(), peer);
    let mut sent = 0;
    for second in 0..400 {
        reached.store(0, Ordering::Relaxed);
        for _ in 0..100 {
            let _ = service.clone().oneshot(()).await;
        }
        advance(Duration::from_secs(1)).await;
        if second >= 300 {
            sent += reached.load(Ordering::Relaxed);
        }
    }
    assert!((1_600..2_400).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_everything_is_not_throttled() {
    let (peer, reached) = peer(u32::MAX);
    let throttle = Throttle::new("orders", Settings::default());
    let service = tower::Layer::layer(&throttle.layer(), peer);
    for _ in 0..1_000 {
        service.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(reached.load(Ordering::Relaxed), 1_000);
    assert_eq!(throttle.rejection_rate(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_who_and_why_and_is_told() {
    #[derive(Default)]
    struct Heard(Mutex<Vec<Reason>>);
    impl Observe for Heard {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Refused(rejected) = event {
                self.0.lock().unwrap().push(rejected.reason());
            }
        }
    }
    rng::seed(1);
    let heard = Arc::new(Heard::default());
    let (peer, reached) = peer(0);
    let throttle = Throttle::new("orders", Settings::default()).observe(Arc::clone(&heard));
    let service = tower::Layer::layer(&throttle.layer(), peer);
    let mut refused = 0;
    for _ in 0..100 {
        let error = service.clone().oneshot(()).await.unwrap_err();
        if let Some(rejected) = Rejected::find(&*error) {
            assert_eq!(
                rejected.to_string(),
                "throttle `orders` held the call back: the peer accepts too few"
            );
            refused += 1;
        }
    }
    assert_eq!(reached.load(Ordering::Relaxed), 100 - refused);
    assert_eq!(
        *heard.0.lock().unwrap(),
        vec![Reason::Throttled; refused as usize]
    );
    assert!(refused > 60, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_counts_whoever_gives_up_and_is_forgotten_in_time() {
    let throttle = Throttle::new("orders", Settings::default());
    let hung = service_fn(|()| pending::<Result<(), BoxError>>());
    let service = tower::Layer::layer(&throttle.layer(), hung);
    let waited = timeout(Duration::from_secs(1), service.oneshot(())).await;
    assert!(waited.is_err());
    assert_eq!(throttle.rejection_rate(), 0.5);
    advance(Duration::from_secs(120)).await;
    assert_eq!(throttle.rejection_rate(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_ignored_is_not_counted_and_layers_share_what_is() {
    let throttle = Throttle::new("orders", Settings::default());
    let (peer, _) = peer(0);
    let ignores = throttle
        .layer()
        .classify(|_: Result<&(), &BoxError>| Outcome::Ignored);
    let ignoring = tower::Layer::layer(&ignores, peer.clone());
    ignoring.oneshot(()).await.unwrap_err();
    assert_eq!(throttle.rejection_rate(), 0.0);
    let counting = tower::Layer::layer(&throttle.clone().layer(), peer);
    counting.oneshot(()).await.unwrap_err();
    assert_eq!(throttle.rejection_rate(), 0.5);
}
