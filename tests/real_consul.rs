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
async fn any_read_follows_what_happens_and_a_filter_hides_the_rest() {
    let Some(url) = real("CONSUL_URL") else {
        return;
    };
    let (consul, service) = (Consul::new(&url).unwrap(), unique("orders"));
    let blue = Instance::new(unique("a"), "10.0.0.1", 80).metadata("tags", "blue,v7");
    let green = Instance::new(unique("b"), "10.0.0.1", 81)
        .metadata("tags", "green")
        .metadata("k", "v");
    consul.register(&service, &blue, TTL).await.unwrap();
    let limit = Duration::from_secs(60);
    let by = |consul: &Consul| Watching::start(consul, &service);
    let mut all = [
        by(&consul),
        by(&consul.clone().stale(limit)),
        by(&consul.clone().cached(limit)),
        by(&consul.clone().datacenter("dc1")),
    ];
    let mut blues = by(&consul.clone().tag("blue").tag("v7"));
    let mut greens = by(&consul.clone().filter("Service.Meta.k == \"v\""));
    for watching in all.iter_mut().chain([&mut blues]) {
        watching.until(|found| *found == [blue.clone()]).await;
    }
    consul.register(&service, &green, TTL).await.unwrap();
    for watching in &mut all {
        watching
            .until(|found| *found == [blue.clone(), green.clone()])
            .await;
    }
    greens.until(|found| *found == [green.clone()]).await;
    consul.deregister(&service, &blue).await.unwrap();
    blues.until(<[Instance]>::is_empty).await;
    consul.deregister(&service, &green).await.unwrap();
    for watching in all.iter_mut().chain([&mut greens]) {
        watching.until(<[Instance]>::is_empty).await;
    }
}

#[tokio::test]
async fn what_this_consul_cannot_do_is_said_in_its_words() {
    let Some(url) = real("CONSUL_URL") else {
        return;
    };
    let consul = Consul::new(&url).unwrap();
    for (consul, kind, said) in [
        (
            consul.clone().namespace("team"),
            ErrorKind::Unsupported,
            "Enterprise",
        ),
        (
            consul.clone().partition("team"),
            ErrorKind::Unsupported,
            "Enterprise",
        ),
        (
            consul.clone().filter("Service.Port =="),
            ErrorKind::Failed,
            "boolean expression",
        ),
        (
            consul.clone().datacenter("dc9"),
            ErrorKind::Failed,
            "No path to datacenter",
        ),
    ] {
        let error = Watching::start(&consul, "orders").error().await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(said), "{error}");
    }
}

#[tokio::test]
async fn an_instance_is_called_at_the_address_that_is_wanted() {
    let Some(url) = real("CONSUL_URL") else {
        return;
    };
    let (consul, service) = (Consul::new(&url).unwrap(), unique("orders"));
    let body = serde_json::json!({
        "ID": unique("a"), "Name": service, "Port": 80,
        "TaggedAddresses": {"wan": {"Address": "198.51.100.7", "Port": 8080}},
    });
    let path = format!("{url}/v1/agent/service/register");
    let request = reqwest::Client::new().put(path).json(&body);
    request.send().await.unwrap().error_for_status().unwrap();
    let at = async |consul: &Consul| {
        let found = Watching::start(consul, &service).instances().await;
        found[0].authority()
    };
    assert_eq!(at(&consul).await, "127.0.0.1:80");
    assert_eq!(
        at(&consul.clone().address("wan")).await,
        "198.51.100.7:8080"
    );
    let instance = Instance::new(body["ID"].as_str().unwrap(), "", 80);
    consul.deregister(&service, &instance).await.unwrap();
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
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, real("CONSUL_ACL_TOKEN").unwrap() + "\n").unwrap();
    let from_file = Consul::new(&url).unwrap().token_file(file.path());
    from_file
        .renew(&service, &instance, Status::Up)
        .await
        .unwrap();

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
