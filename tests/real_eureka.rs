//! Against the real Eureka of `EUREKA_URL`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::discovery::{Instance, Registry, Renewal, Status};
use buttress::registries::eureka::Eureka;
use watching::{TTL, Watching, real, unique};

fn eureka(url: &str) -> Eureka {
    Eureka::new(url).unwrap().poll(Duration::from_millis(300))
}

fn is_one(status: Status) -> impl Fn(&[Instance]) -> bool {
    move |instances| matches!(instances, [one] if one.status == status)
}

#[tokio::test]
async fn instances_come_change_and_go() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let a = Instance::new("a", "10.0.0.1", 8443)
        .secure(true)
        .zone("z1")
        .weight(3)
        .metadata("version", "7");
    let changed = a.clone().weight(9).metadata("version", "8");
    let b = Instance::new("10.0.0.2:orders:80", "10.0.0.2", 80);
    let (eureka, service) = (eureka(&url), unique("orders"));
    watching::instances_come_change_and_go(&eureka, &service, [a, changed, b]).await;
}

#[tokio::test]
async fn a_heartbeat_tells_the_status() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let (eureka, service) = (eureka(&url), unique("orders"));
    let instance = Instance::new("a", "10.0.0.1", 80).status(Status::Starting);
    eureka.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&eureka, &service);
    watching.until(is_one(Status::Starting)).await;
    for (told, seen) in [
        (Status::Up, Status::Up),
        (Status::Down, Status::Down),
        (Status::Up, Status::Up),
        // Eureka keeps that word for operators.
        (Status::OutOfService, Status::Down),
        (Status::Up, Status::Up),
    ] {
        let renewal = eureka.renew(&service, &instance, told).await;
        assert_eq!(renewal.unwrap(), Renewal::Renewed);
        watching.until(is_one(seen)).await;
    }
    eureka.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn an_instance_whose_lease_runs_out_goes() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let (eureka, service) = (eureka(&url), unique("orders"));
    let instance = Instance::new("a", "10.0.0.1", 80);
    eureka
        .register(&service, &instance, Duration::from_secs(1))
        .await
        .unwrap();
    let mut watching = Watching::start(&eureka, &service);
    watching.until(is_one(Status::Up)).await;
    watching.until(|instances| instances.is_empty()).await;
    assert_eq!(
        eureka.renew(&service, &instance, Status::Up).await.unwrap(),
        Renewal::Unknown
    );
}

#[tokio::test]
async fn an_instance_that_was_taken_out_behind_its_back_registers_again() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let (eureka, service) = (eureka(&url), unique("orders"));
    let instance = Instance::new("a", "10.0.0.1", 80);
    eureka.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(
        eureka.renew(&service, &instance, Status::Up).await.unwrap(),
        Renewal::Renewed
    );

    let path = format!("{url}/apps/{}/a", service.to_uppercase());
    let gone = reqwest::Client::new().delete(path).send().await.unwrap();
    assert!(gone.status().is_success());
    assert_eq!(
        eureka.renew(&service, &instance, Status::Up).await.unwrap(),
        Renewal::Unknown
    );

    eureka.register(&service, &instance, TTL).await.unwrap();
    assert_eq!(
        eureka.renew(&service, &instance, Status::Up).await.unwrap(),
        Renewal::Renewed
    );
    eureka.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn an_operators_word_outlasts_heartbeats() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let (eureka, service) = (eureka(&url), unique("orders"));
    // Eureka keeps an operator's word by the instance's id alone, whatever its service: another test's "a" would get it.
    let id = unique("a");
    let instance = Instance::new(&*id, "10.0.0.1", 80);
    eureka.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&eureka, &service);
    watching.until(is_one(Status::Up)).await;

    let app = service.to_uppercase();
    let path = format!("{url}/apps/{app}/{id}/status?value=OUT_OF_SERVICE");
    reqwest::Client::new()
        .put(path)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    watching.until(is_one(Status::OutOfService)).await;
    eureka.renew(&service, &instance, Status::Up).await.unwrap();
    watching.next().await;
    let now = Watching::start(&eureka, &service).instances().await;
    assert_eq!(now[0].status, Status::OutOfService);
    eureka.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn many_services_are_followed_by_one_handle() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let eureka = eureka(&url);
    let names: Vec<_> = (0..10).map(|n| unique(&format!("many{n}"))).collect();
    let mut all: Vec<_> = names
        .iter()
        .map(|name| Watching::start(&eureka, name))
        .collect();
    for watching in &mut all {
        assert_eq!(watching.instances().await, []);
    }
    for (n, name) in names.iter().enumerate() {
        let instance = Instance::new(format!("i{n}"), "10.0.0.1", 80);
        eureka.register(name, &instance, TTL).await.unwrap();
    }
    for (n, watching) in all.iter_mut().enumerate() {
        let found = watching.until(|instances| !instances.is_empty()).await;
        assert_eq!(found[0].id, format!("i{n}"));
    }
    for (n, name) in names.iter().enumerate() {
        eureka
            .deregister(name, &Instance::new(format!("i{n}"), "10.0.0.1", 80))
            .await
            .unwrap();
    }
}
