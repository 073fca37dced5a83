//! The real servers of `scripts/test`, killed as by a crash and started again with an empty store. Alone in its file,
//! since what else asks them meanwhile would fail.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod kubernetes;
mod watching;

use std::sync::Arc;

use buttress::discovery::{ErrorKind, Instance, Registry, Renewal, Resolver, Status};
use buttress::registries::zookeeper::ZooKeeper;
use kubernetes::{Api, ready};
use serde_json::json;
use tokio::process::Command;
use watching::{TTL, Watching, left_out, real, unique};

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
    assert_eq!(watching.error().await.kind(), ErrorKind::Unreachable);
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

fn instance() -> Instance {
    Instance::new(unique("a"), "10.0.0.1", 80)
}

#[tokio::test]
async fn kubernetes_may_crash_and_forget() {
    let (Some(api), Some(_)) = (Api::real(), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let service = unique("orders");
    let endpoints = json!([ready("a", 1), ready("b", 2)]);
    api.put(&service, &service, endpoints.clone()).await;
    let resolver = Resolver::new(api.registry());
    let resolved = resolver.watch(&*service);
    let known = resolved.resolved().await.unwrap();
    let mut watching = Watching::start(&api.registry(), &service);
    assert_eq!(watching.instances().await.len(), 2);

    if !servers("kill", "kubernetes").await {
        left_out("a crash of kubernetes, which is not ours to kill");
        return;
    }
    assert_eq!(watching.error().await.kind(), ErrorKind::Unreachable);
    let error = Watching::start(&api.registry(), &service).error().await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    assert!(servers("restart", "kubernetes").await);
    let mut watching = Watching::start(&api.registry(), &service);
    assert_eq!(watching.instances().await, []);
    // Whoever resolves goes on with what it knew.
    let held = resolved.changed(known.version()).await;
    assert_eq!((held.live().len(), held.held().len()), (0, 2));
    api.put(&service, &service, endpoints).await;
    assert_eq!(watching.instances().await.len(), 2);
    let back = resolved.changed(held.version()).await;
    assert_eq!((back.live().len(), back.held().len()), (2, 0));
}

#[tokio::test]
async fn zookeeper_may_crash_and_forget() {
    let (Some(url), Some(_)) = (real("ZOOKEEPER_URL"), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let zookeeper = Arc::new(ZooKeeper::new(&url).unwrap());
    a_crash_ends_the_watch_and_the_instance_registers_again(zookeeper, "zookeeper", instance())
        .await;
}
