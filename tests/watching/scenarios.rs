//! What happens with any registry that instances can be registered with, whatever the wire format.

use std::time::Duration;

use buttress::discovery::{Instance, Registry, Renewal, Status};

use super::{TTL, Watching, is_one, unique};

pub async fn instances_come_change_and_go(registry: &impl Registry) {
    let a = Instance::new(unique("a"), "10.0.0.1", 8443)
        .secure(true)
        .zone("z1")
        .weight(3)
        .metadata("version", "7");
    let changed = a.clone().weight(9).metadata("version", "8");
    let b = Instance::new(unique("b"), "::1", 80);
    let service = unique("orders");
    let mut watching = Watching::start(registry, &service);
    assert_eq!(
        watching.instances().await,
        [],
        "an unknown service has no instances"
    );
    registry.register(&service, &a, TTL).await.unwrap();
    watching.until(|instances| *instances == [a.clone()]).await;
    registry.register(&service, &b, TTL).await.unwrap();
    watching
        .until(|instances| *instances == [a.clone(), b.clone()])
        .await;
    registry.register(&service, &changed, TTL).await.unwrap();
    watching
        .until(|instances| *instances == [changed.clone(), b.clone()])
        .await;
    registry.deregister(&service, &changed).await.unwrap();
    watching.until(|instances| *instances == [b.clone()]).await;
    registry.deregister(&service, &b).await.unwrap();
    watching.until(|instances| instances.is_empty()).await;
    registry
        .deregister(&service, &b)
        .await
        .expect("one that is not there is no error");
}

/// `shown`: what the registry makes of a status.
pub async fn a_heartbeat_tells_the_status(
    registry: &impl Registry,
    shown: impl Fn(Status) -> Status,
) {
    let service = unique("orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80).status(Status::Starting);
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(registry, &service);
    watching.until(is_one(Status::Starting)).await;
    for status in [
        Status::Up,
        Status::OutOfService,
        Status::Up,
        Status::Down,
        Status::Up,
    ] {
        let renewal = registry.renew(&service, &instance, status).await;
        assert_eq!(renewal.unwrap(), Renewal::Renewed);
        watching.until(is_one(shown(status))).await;
    }
    registry.deregister(&service, &instance).await.unwrap();
}

/// `take_out`: does so with the instance of that service and id, as an operator might.
pub async fn an_instance_that_was_taken_out_behind_its_back_registers_again(
    registry: &impl Registry,
    take_out: impl AsyncFnOnce(&str, &str),
) {
    let service = unique("orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    let renew = async || {
        let renewal = registry.renew(&service, &instance, Status::Up).await;
        renewal.unwrap()
    };
    registry.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(renew().await, Renewal::Renewed);
    take_out(&service, &instance.id).await;
    assert_eq!(renew().await, Renewal::Unknown);
    registry.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(renew().await, Renewal::Renewed);
    registry.deregister(&service, &instance).await.unwrap();
}

pub async fn the_case_of_a_services_name_does_not_matter(registry: &impl Registry) {
    let service = unique("Orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    registry.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(registry, &service.to_ascii_lowercase());
    watching.until(is_one(Status::Up)).await;
    registry.deregister(&service, &instance).await.unwrap();
}

/// Registered for a second, and never renewed.
pub async fn an_instance_whose_lease_runs_out_goes(registry: &impl Registry) {
    let service = unique("orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    let ttl = Duration::from_secs(1);
    registry.register(&service, &instance, ttl).await.unwrap();
    let mut watching = Watching::start(registry, &service);
    watching.until(is_one(Status::Up)).await;
    watching.until(|instances| instances.is_empty()).await;
    let renewal = registry.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
}
