//! Faults on purpose, through the public face, in paused time.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::algo::breaker::{Settings, State};
use buttress::algo::faults::Faults;
use buttress::layers::chaos::{Chaos, Injected};
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::layers::timeout::TimeoutLayer;
use buttress::observe::{Event, Observe};
use buttress::transport::http::CutBody;
use buttress::{BoxError, Rejected, clock};
use futures_util::future::poll_fn;
use http_body::Body;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn echo()
-> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(|request: u32| async move { Ok(request) })
}

/// Which of the calls up to `calls` fail.
async fn failures<S>(service: &mut S, calls: u32) -> Vec<u32>
where
    S: Service<u32>,
{
    let mut failed = Vec::new();
    for request in 0..calls {
        if service.call(request).await.is_err() {
            failed.push(request);
        }
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn it_is_off_unless_asked_for_and_is_steered_while_calls_flow() {
    let chaos = Chaos::new("prices", 1);
    let mut service = chaos.layer().layer(echo());
    assert!(chaos.faults().is_none());
    assert!(failures(&mut service, 1000).await.is_empty());

    let began = clock::now();
    let under_way = service.call(7);
    chaos.clone().set(Faults::new().errors(1.0));
    assert_eq!(failures(&mut service, 10).await.len(), 10);
    assert_eq!(under_way.await.unwrap(), 7, "it was made before");

    chaos.set(Faults::new().latency(1.0, SECOND..=SECOND));
    assert_eq!(service.call(7).await.unwrap(), 7);
    assert_eq!(clock::now() - began, SECOND);

    chaos.stop();
    assert!(failures(&mut service, 1000).await.is_empty());
    assert_eq!(clock::now() - began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_a_run_and_another_gives_another() {
    let run = async |seed| {
        let chaos = Chaos::new("prices", seed);
        chaos.set(Faults::new().errors(0.1));
        failures(&mut chaos.layer().layer(echo()), 10_000).await
    };
    let one = run(1).await;
    assert!((900..1100).contains(&one.len()), "{} of 10000", one.len());
    assert_eq!(one, run(1).await);
    let other = run(2).await;
    assert_ne!(one, other);
    let common = other.iter().filter(|it| one.contains(it)).count();
    assert!(common < 150, "a tenth of a tenth, not {common}");
}

#[tokio::test(start_paused = true)]
async fn latency_comes_on_top_of_what_the_call_takes() {
    let chaos = Chaos::new("prices", 1);
    chaos.set(Faults::new().latency(1.0, SECOND..=3 * SECOND));
    let slow = service_fn(|()| async {
        tokio::time::sleep(SECOND).await;
        Ok::<_, BoxError>(())
    });
    let mut service = chaos.layer().layer(slow);
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = clock::now();
        service.call(()).await.unwrap();
        took.push(clock::now() - began);
    }
    assert!(took.iter().all(|it| (2 * SECOND..=4 * SECOND).contains(it)));
    assert!(
        took.iter()
            .max()
            .unwrap()
            .abs_diff(*took.iter().min().unwrap())
            > SECOND
    );

    // An error is as late as an answer.
    chaos.set(Faults::new().latency(1.0, SECOND..=SECOND).errors(1.0));
    let began = clock::now();
    assert!(service.call(()).await.is_err());
    assert_eq!(clock::now() - began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_or_hangs_is_not_made() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, BoxError>(()) }
    });
    let chaos = Chaos::new("prices", 1);
    let mut service = chaos.layer().layer(inner);
    chaos.set(Faults::new().errors(1.0));
    assert!(service.call(()).await.unwrap_err().is::<Injected>());
    chaos.set(Faults::new().hangs(1.0));
    let mut hung = pin!(service.call(()));
    assert!(timeout(3600 * SECOND, hung.as_mut()).await.is_err());
    // Who hangs goes on hanging.
    chaos.stop();
    assert!(timeout(3600 * SECOND, hung).await.is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn only_chosen_requests_are_troubled() {
    let chaos = Chaos::new("prices", 1);
    chaos.set(Faults::new().errors(1.0));
    let layer = chaos.layer().when(|request: &u32| request % 3 == 0);
    let failed = failures(&mut layer.layer(echo()), 10).await;
    assert_eq!(failed, [0, 3, 6, 9]);
}

#[tokio::test(start_paused = true)]
async fn the_error_can_be_the_services_own() {
    #[derive(Debug, PartialEq)]
    struct Reset;
    let chaos = Chaos::new("prices", 1);
    chaos.set(Faults::new().errors(1.0));
    let layer = chaos.layer().error(|| Reset);
    let service = layer.layer(service_fn(|()| async { Ok::<(), Reset>(()) }));
    assert_eq!(service.oneshot(()).await, Err(Reset));
}

#[tokio::test(start_paused = true)]
async fn a_failure_can_be_an_answer_as_a_peer_gives_it() {
    let chaos = Chaos::new("prices", 1);
    // What comes out of the layer: an answer that was put into another type, and is not cut.
    let mut service = chaos
        .layer()
        .answer(|| "503".to_owned())
        .cut(|answer: u32, _: bool| answer.to_string())
        .layer(echo());
    assert_eq!(service.call(7).await.unwrap(), "7");
    chaos.set(Faults::new().errors(1.0).latency(1.0, SECOND..=SECOND));
    let began = clock::now();
    assert_eq!(service.call(7).await.unwrap(), "503");
    assert_eq!(clock::now() - began, SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_stands_outside_takes_it_for_trouble_of_the_peer() {
    let chaos = Chaos::new("prices", 1);
    let breaker = CircuitBreaker::new("prices", Settings::default().minimum_calls(4));
    let service = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(TimeoutLayer::new(SECOND))
        .layer(chaos.layer())
        .service(echo());
    for faults in [Faults::new().errors(1.0), Faults::new().hangs(1.0)] {
        chaos.set(faults);
        for _ in 0..4 {
            assert!(service.clone().oneshot(1).await.is_err());
        }
        assert_eq!(breaker.state(), State::Open);
        breaker.close();
    }
    let error = service.oneshot(1).await.unwrap_err();
    assert!(Rejected::find(&*error).unwrap().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_cut_by_the_hook_and_by_nothing_else() {
    let chaos = Chaos::new("prices", 1);
    chaos.set(Faults::new().cuts(1.0));
    assert_eq!(chaos.layer().layer(echo()).oneshot(77).await.unwrap(), 77);
    let halves = chaos.layer().cut(|whole: u32, cut| match cut {
        true => whole / 2,
        false => whole,
    });
    assert_eq!(halves.layer(echo()).oneshot(77).await.unwrap(), 38);
    chaos.stop();
    assert_eq!(halves.layer(echo()).oneshot(77).await.unwrap(), 77);
}

#[tokio::test(start_paused = true)]
async fn a_body_breaks_off_as_one_does_whose_connection_is_reset() {
    let chaos = Chaos::new("prices", 1);
    let mut service = ServiceBuilder::new()
        .layer(
            chaos
                .layer()
                .cut(|body: String, cut| CutBody::new(body, cut.then_some(4))),
        )
        .service_fn(|body: &'static str| async move { Ok::<_, BoxError>(body.to_owned()) });

    let read = async |mut body: CutBody<String>| {
        let mut read = 0;
        while let Some(frame) = poll_fn(|cx| pin!(&mut body).poll_frame(cx)).await {
            match frame {
                Ok(frame) => read += frame.data_ref().map_or(0, |data| data.len()),
                Err(error) => {
                    let cut = error.downcast::<std::io::Error>().unwrap();
                    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
                    assert!(body.is_end_stream());
                    return Err(read);
                }
            }
        }
        Ok(read)
    };
    let whole = service.call("twelve bytes").await.unwrap();
    assert_eq!(whole.size_hint().exact(), Some(12));
    assert_eq!(read(whole).await, Ok(12));
    chaos.set(Faults::new().cuts(1.0));
    let cut = service.call("twelve bytes").await.unwrap();
    assert_eq!(read(cut).await, Err(0), "its only part is above four bytes");
    let short = service.call("four").await.unwrap();
    assert!(!short.is_end_stream());
    assert_eq!(read(short).await, Err(4), "but its end never arrives");
}

#[tokio::test(start_paused = true)]
async fn the_observer_can_tell_it_from_real_trouble() {
    #[derive(Default)]
    struct Injections(Mutex<Vec<String>>);
    impl Observe for Injections {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::FaultInjected { chaos, fault } = event {
                self.0.lock().unwrap().push(format!("{chaos} {fault}"));
            }
        }
    }
    let injections = Arc::new(Injections::default());
    let chaos = Chaos::new("prices", 1).observe(Arc::clone(&injections));
    let layer = chaos.layer().cut(|whole: u32, _| whole);
    let mut service = layer.layer(echo());
    let late = Faults::new().latency(1.0, SECOND..=SECOND);
    for faults in [
        Faults::new(),
        late.clone(),
        late.clone().errors(1.0),
        late.hangs(1.0),
        Faults::new().cuts(1.0),
    ] {
        chaos.set(faults);
        drop(service.call(1));
    }
    // Without a hook nothing is cut, and nothing told.
    drop(chaos.layer().layer(echo()).call(1));
    assert_eq!(
        *injections.0.lock().unwrap(),
        [
            "prices latency",
            "prices latency",
            "prices error",
            "prices hang",
            "prices cut"
        ]
    );
}
