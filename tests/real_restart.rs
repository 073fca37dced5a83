//! The real servers of `scripts/test`, killed as by a crash and started again with an empty store. Alone in its file,
//! since what else asks them meanwhile would fail.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::sync::Arc;
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Freshness, Instance, Registry, Renewal, Resolver, Status};
use tokio::process::Command;
use watching::zone::{Operated, Zone};
use watching::{PATIENCE, TTL, Watching, left_out, real, unique};

async fn servers(verb: &str, server: &str) -> bool {
    let mut command = Command::new("scripts/servers");
    let status = command.args([verb, server]).status().await;
    status.unwrap().success()
}

async fn a_crash_ends_the_watch_and_the_instance_registers_again(
    registry: Arc<dyn Registry>,
    server: &str,
    instance: Instance,
) {
    let service = unique("orders");
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&*registry, &service);
    watching.until(|instances| !instances.is_empty()).await;

    if !servers("kill", server).await {
        left_out(&format!("a crash of {server}, which is not ours to kill"));
        registry.deregister(&service, &instance).await.unwrap();
        return;
    }
    // Over UDP, one that is gone is one that is silent.
    let gone = watching.error().await.kind();
    assert!(matches!(gone, ErrorKind::Unreachable | ErrorKind::TimedOut));
    let renewal = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap_err().kind(), ErrorKind::Unreachable);

    assert!(servers("restart", server).await);
    let renewal = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
    let mut watching = Watching::start(&*registry, &service);
    assert_eq!(watching.instances().await, []);
    registry.register(&service, &instance, TTL).await.unwrap();
    let found = watching.until(|instances| !instances.is_empty()).await;
    assert_eq!(found, std::slice::from_ref(&instance));
    registry.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn dns_may_crash_and_forget_and_may_hang() {
    let (Some(zone), Some(_)) = (Zone::real(), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let dns = Arc::new(Operated::new(zone));
    let instance = Operated::instance("10.0.0.1", 80);
    let registry = dns.clone();
    a_crash_ends_the_watch_and_the_instance_registers_again(registry, "dns", instance.clone())
        .await;
    a_server_that_is_stopped_changes_nothing(dns, "dns", instance).await;
}

/// Sends `signal` to `server`, if it is ours.
async fn signal(signal: &str, server: &str) -> bool {
    let mut command = Command::new("scripts/servers");
    let status = command.args(["status", server]).output().await.unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let pid = status
        .split_once("pid ")
        .and_then(|(_, rest)| rest.split(',').next());
    let Some(pid) = pid else {
        return false;
    };
    let sent = Command::new("kill").args([signal, pid]).status().await;
    sent.unwrap().success()
}

async fn a_server_that_is_stopped_changes_nothing(
    registry: Arc<dyn Registry>,
    server: &str,
    instance: Instance,
) {
    let service = unique("orders");
    registry.register(&service, &instance, TTL).await.unwrap();
    let watch = Resolver::new(registry.clone()).watch(&*service);
    watch.resolved().await.unwrap();
    let is = async |wanted: fn(Freshness) -> bool| {
        let began = clock::now();
        while !wanted(watch.freshness()) {
            assert!(clock::now() - began < PATIENCE, "{:?}", watch.freshness());
            clock::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(*watch.snapshot().instances()[0], instance);
    };

    if !signal("-STOP", server).await {
        return left_out(&format!("a stop of {server}, which is not ours"));
    }
    is(|freshness| matches!(freshness, Freshness::Stale { .. })).await;
    assert!(signal("-CONT", server).await);
    is(|freshness| freshness == Freshness::Fresh).await;
    registry.deregister(&service, &instance).await.unwrap();
}
