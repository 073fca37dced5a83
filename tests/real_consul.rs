//! Against the real Consul of `CONSUL_URL`, and the one of `CONSUL_ACL_URL` that denies what comes without
//! `CONSUL_ACL_TOKEN`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Status, Update};
use buttress::registries::consul::Consul;
use watching::{TTL, Watching, is_one, real, unique};

#[tokio::test]
async fn maintenance_shows_as_out_of_service() {
    let Some(url) = real("CONSUL_URL") else {
        return;
    };
    let (consul, service) = (Consul::new(&url).unwrap(), unique("orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    consul.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&consul, &service);
    watching.until(is_one(Status::Up)).await;
    let path = format!(
        "{url}/v1/agent/service/maintenance/{}?enable=true",
        instance.id
    );
    reqwest::Client::new()
        .put(path)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    watching.until(is_one(Status::OutOfService)).await;
    consul.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn a_change_is_seen_at_once_and_what_happens_elsewhere_is_not_a_change() {
    let Some(url) = real("CONSUL_URL") else {
        return;
    };
    let (consul, service) = (Consul::new(&url).unwrap(), unique("orders"));
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    consul.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&consul, &service);
    watching.until(is_one(Status::Up)).await;

    let elsewhere = unique("stock");
    for n in 0..20 {
        let other = Instance::new(format!("{elsewhere}-{n}"), "10.0.0.2", 80);
        consul.register(&elsewhere, &other, TTL).await.unwrap();
        consul.deregister(&elsewhere, &other).await.unwrap();
    }
    clock::sleep(Duration::from_millis(500)).await;
    while let Ok(update) = watching.updates.try_recv() {
        assert_eq!(update, Update::Confirmed);
    }

    let began = clock::now();
    consul.deregister(&service, &instance).await.unwrap();
    watching.until(|instances| instances.is_empty()).await;
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_a_clear_denial_and_the_right_one_opens() {
    let Some(url) = real("CONSUL_ACL_URL") else {
        return;
    };
    let Some(token) = real("CONSUL_ACL_TOKEN") else {
        return;
    };
    let service = unique("orders");
    let instance = Instance::new(unique("a"), "10.0.0.1", 80);
    let right = Consul::new(&url).unwrap().token(token);
    right.register(&service, &instance, TTL).await.unwrap();
    let found = Watching::start(&right, &service)
        .until(is_one(Status::Up))
        .await;
    assert_eq!(found, std::slice::from_ref(&instance));

    let none = Consul::new(&url).unwrap();
    let wrong = Consul::new(&url)
        .unwrap()
        .token("b0771e55-0000-4000-8000-000000000002");
    for (consul, said) in [(none, "no token was given"), (wrong, "ACL not found")] {
        let error = Watching::start(&consul, &service).error().await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains(said), "{error}");
        let error = consul.register(&service, &instance, TTL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let error = consul
            .renew(&service, &instance, Status::Up)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
    right.deregister(&service, &instance).await.unwrap();
}
