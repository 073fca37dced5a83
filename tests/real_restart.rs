//! The real servers of `scripts/test`, killed as by a crash and started again with an empty store. Alone in its file,
//! since what else asks them meanwhile would fail.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::sync::Arc;
use std::time::Duration;

use buttress::discovery::{ErrorKind, Instance, Registry, Renewal, Status};
use buttress::registries::consul::Consul;
use buttress::registries::eureka::Eureka;
use buttress::registries::zookeeper::ZooKeeper;
use tokio::process::Command;
use watching::{Watching, left_out, real, unique};

const TTL: Duration = Duration::from_secs(30);

async fn servers(verb: &str, server: &str) -> bool {
    let mut command = Command::new("scripts/servers");
    let status = command.args([verb, server]).status().await;
    status.unwrap().success()
}

async fn a_crash_ends_the_watch_and_the_instance_registers_again(
    registry: Arc<dyn Registry>,
    server: &str,
) {
    let service = unique("orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
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

#[tokio::test]
async fn consul_may_crash_and_forget() {
    let (Some(url), Some(_)) = (real("CONSUL_URL"), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let consul = Arc::new(Consul::new(&url).unwrap());
    a_crash_ends_the_watch_and_the_instance_registers_again(consul, "consul").await;
}

#[tokio::test]
async fn eureka_may_crash_and_forget() {
    let (Some(url), Some(_)) = (real("EUREKA_URL"), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let eureka = Eureka::new(&url).unwrap();
    let eureka = Arc::new(eureka.poll(Duration::from_millis(300)));
    a_crash_ends_the_watch_and_the_instance_registers_again(eureka, "eureka").await;
}

#[tokio::test]
async fn zookeeper_may_crash_and_forget() {
    let (Some(url), Some(_)) = (real("ZOOKEEPER_URL"), real("BUTTRESS_SERVERS_STATE")) else {
        return;
    };
    let zookeeper = Arc::new(ZooKeeper::new(&url).unwrap());
    a_crash_ends_the_watch_and_the_instance_registers_again(zookeeper, "zookeeper").await;
}
