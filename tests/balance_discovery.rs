//! The balancer over instances that come and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use buttress::balance::{Balance, NewEndpoint, Tried};
use buttress::discovery::{Resolver, Watch};
use buttress::error::{Error, Reason};
use buttress::registries::memory::Memory;
use buttress::{Instance, Registry, clock};
use tower::{Service, service_fn};

fn instance(id: &str) -> Instance {
    Instance::new(id, "10.0.0.1", 80)
}

async fn register(registry: &Memory, ids: &[&str]) {
    for id in ids {
        registry
            .register("orders", &instance(id), Duration::MAX)
            .await
            .expect("registered");
    }
}

/// Each instance answers with its id.
fn balance(watch: Watch) -> Balance<impl NewEndpoint<Service = impl Answers>> {
    Balance::new(watch, |instance: &Arc<Instance>| {
        let instance = instance.clone();
        service_fn(move |(): ()| {
            let id = instance.id.clone();
            async move { Ok::<_, Error<()>>(id) }
        })
    })
}

trait Answers: Service<(), Response = String, Error = Error<()>, Future: Send> + Clone {}
impl<S> Answers for S where
    S: Service<(), Response = String, Error = Error<()>, Future: Send> + Clone
{
}

async fn called(balance: &Balance<impl NewEndpoint<Service = impl Answers>>) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    for _ in 0..50 {
        called.insert(balance.send((), None).await.expect("an answer"));
    }
    called
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_gets_calls_and_a_departed_one_none() {
    let registry = Memory::new();
    let watch = Resolver::new(registry.clone()).watch("orders");
    let balance = balance(watch.clone());
    register(&registry, &["a", "b", "c"]).await;
    assert_eq!(called(&balance).await.len(), 3);

    let seen = watch.snapshot().version();
    register(&registry, &["d"]).await;
    watch.changed(seen).await;
    assert!(called(&balance).await.contains("d"));

    let seen = watch.snapshot().version();
    registry
        .deregister("orders", &instance("a"))
        .await
        .expect("left");
    watch.changed(seen).await;
    assert!(!called(&balance).await.contains("a"));
    assert_eq!(balance.instances().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn those_that_the_registry_forgot_are_called_only_while_it_names_nobody() {
    let registry = Memory::new();
    let watch = Resolver::new(registry.clone()).watch("orders");
    let balance = balance(watch.clone());
    register(&registry, &["a", "b", "c", "d"]).await;
    assert_eq!(called(&balance).await.len(), 4);

    let seen = watch.snapshot().version();
    registry.clear();
    watch.changed(seen).await;
    assert!(balance.instances().iter().all(|view| view.held));
    assert_eq!(called(&balance).await.len(), 4);

    // The first to come back does not get the load of all.
    let seen = watch.snapshot().version();
    register(&registry, &["a"]).await;
    let seen = watch.changed(seen).await.version();
    assert_eq!(called(&balance).await.len(), 4);
    register(&registry, &["b"]).await;
    watch.changed(seen).await;
    let back = ["a", "b"].map(str::to_owned);
    assert_eq!(called(&balance).await, BTreeSet::from(back));
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_goes_to_one_that_the_registry_forgot_rather_than_again_to_the_same() {
    let registry = Memory::new();
    let watch = Resolver::new(registry.clone()).watch("orders");
    let balance = balance(watch.clone());
    register(&registry, &["a", "b", "c", "d"]).await;
    let known = called(&balance).await;
    let seen = watch.snapshot().version();
    registry.clear();
    let seen = watch.changed(seen).await.version().max(seen);
    register(&registry, &["a"]).await;
    let seen = watch.changed(seen).await.version();
    register(&registry, &["b"]).await;
    watch.changed(seen).await;

    let tried = Arc::new(Tried::default());
    let mut attempts = Vec::new();
    for _ in 0..4 {
        attempts.push(balance.send((), Some(&tried)).await.expect("an answer"));
    }
    assert_eq!(
        attempts[..2].iter().max().unwrap(),
        "b",
        "the live come first"
    );
    assert_eq!(BTreeSet::from_iter(attempts), known);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_instances() {
    let registry = Memory::new();
    registry.set_down(true);
    let watch = Resolver::new(registry.clone()).watch("orders");
    let balance = balance(watch);
    let call = tokio::spawn(balance.send((), None));
    tokio::task::yield_now().await;
    registry.set_down(false);
    register(&registry, &["a"]).await;
    assert_eq!(call.await.expect("no panic").expect("an answer"), "a");
}

#[tokio::test(start_paused = true)]
async fn discovery_that_never_resolves_does_not_hang_calls() {
    let registry = Memory::new();
    registry.set_down(true);
    let watch = Resolver::new(registry).watch("orders");
    let begun = clock::now();
    let Err(Error::Rejected(rejected)) = balance(watch).send((), None).await else {
        panic!("nobody could answer");
    };
    assert_eq!(rejected.reason(), Reason::Unresolved);
    assert!(clock::now() - begun <= Duration::from_secs(30));
}
