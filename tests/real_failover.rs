//! The real servers of `scripts/test`, one of which is killed while another goes on. Alone in its file, since what else
//! asks them meanwhile would fail.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{Freshness, Instance, Registration, Registry, Resolver, Watch};
use buttress::registries::consul::Consul;
use buttress::registries::eureka::Eureka;
use tokio::process::Command;
use watching::{TTL, real, unique};

async fn servers(verb: &str, server: &str) {
    let mut command = Command::new("scripts/servers");
    let status = command.args([verb, server]).status().await;
    assert!(status.unwrap().success(), "{verb} {server}");
}

/// Every list of ids that a watch gives, each but once in a row.
fn followed(watch: Watch) -> Arc<Mutex<Vec<BTreeSet<String>>>> {
    let lists = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lists);
    tokio::spawn(async move {
        let mut version = 0;
        loop {
            let snapshot = watch.changed(version).await;
            version = snapshot.version();
            let ids = snapshot.instances().iter().map(|one| one.id.clone());
            seen.lock().unwrap().push(ids.collect());
        }
    });
    lists
}

/// `registry` asks `first` first, and then `second`; `elsewhere` is another way to the same.
async fn a_watch_and_a_registration_go_on_through_the_next_server(
    registry: impl Registry + Clone,
    elsewhere: impl Registry + Clone,
    [first, second]: [&str; 2],
) {
    let service = unique("orders");
    let mine = Instance::new(unique("mine"), "10.0.0.1", 80);
    let other = Instance::new(unique("other"), "10.0.0.2", 80);
    let kept = Registration::new(elsewhere.clone(), &*service, other.clone());
    let kept = kept.ttl(TTL).start();
    let registered = Registration::new(registry.clone(), &*service, mine.clone());
    let registered = registered
        .ttl(Duration::from_secs(6))
        .drain(Duration::ZERO)
        .start();
    kept.registered().await.unwrap();
    registered.registered().await.unwrap();

    let watch = Resolver::new(registry).watch(&*service);
    let both = BTreeSet::from([mine.id.clone(), other.id.clone()]);
    let lists = followed(watch.clone());
    let until = async |what: &str, wanted: &BTreeSet<String>| {
        let began = clock::now();
        while lists.lock().unwrap().last() != Some(wanted) {
            clock::sleep(Duration::from_millis(50)).await;
            let lists = lists.lock().unwrap();
            assert!(clock::now() - began < PATIENCE, "{what}: {lists:?}");
        }
    };
    until("both", &both).await;
    lists.lock().unwrap().retain(|list| *list == both);

    // Longer than a lease, and than it takes the others to notice.
    servers("kill", first).await;
    clock::sleep(Duration::from_secs(25)).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
    registered.registered().await.unwrap();

    // A change shows through the next one.
    let late = Instance::new(unique("late"), "10.0.0.3", 80);
    elsewhere.register(&service, &late, TTL).await.unwrap();
    let all = BTreeSet::from_iter(both.iter().cloned().chain([late.id.clone()]));
    until("a change", &all).await;

    // And back: the first one has no memory of anything, and is no longer in quarantine.
    servers("restart", first).await;
    clock::sleep(Duration::from_secs(10)).await;
    servers("kill", second).await;
    clock::sleep(Duration::from_secs(25)).await;
    servers("restart", second).await;
    assert_eq!(watch.freshness(), Freshness::Fresh);
    registered.registered().await.unwrap();

    let lists = lists.lock().unwrap().clone();
    let is_right = |list: &BTreeSet<String>| *list == both || *list == all;
    assert!(lists.iter().all(is_right), "{lists:?}");
    registered.deregister().await.unwrap();
    elsewhere.deregister(&service, &late).await.unwrap();
    kept.deregister().await.unwrap();
}

#[tokio::test]
async fn a_consul_agent_may_be_killed() {
    let (Some(server), Some(two), Some(three), Some(_)) = (
        real("CONSUL_URL"),
        real("CONSUL_2_URL"),
        real("CONSUL_3_URL"),
        real("BUTTRESS_SERVERS_STATE"),
    ) else {
        return;
    };
    let agents = Consul::new(&format!("{two},{three}")).unwrap();
    let server = Consul::new(&server).unwrap();
    let names = ["consul-2", "consul-3"];
    a_watch_and_a_registration_go_on_through_the_next_server(agents, server, names).await;
}

#[tokio::test]
async fn a_eureka_server_may_be_killed() {
    let (Some(one), Some(two), Some(_)) = (
        real("EUREKA_URL"),
        real("EUREKA_2_URL"),
        real("BUTTRESS_SERVERS_STATE"),
    ) else {
        return;
    };
    let often = Duration::from_millis(300);
    let first = Eureka::new(&two).unwrap().other_zone(&one).unwrap();
    let first = first.poll(often);
    let names = ["eureka-2", "eureka"];
    a_watch_and_a_registration_go_on_through_the_next_server(first.clone(), first, names).await;
}

const PATIENCE: Duration = Duration::from_secs(30);
