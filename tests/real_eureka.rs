//! Against the real Eureka of `EUREKA_URL`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::discovery::{Instance, Registry, Status};
use buttress::registries::eureka::Eureka;
use watching::{TTL, Watching, is_one, real, unique};

fn eureka(url: &str) -> Eureka {
    Eureka::new(url).unwrap().poll(Duration::from_millis(300))
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
