//! Against the real Eureka of `EUREKA_URL`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::discovery::{Instance, Registry, Renewal, Status};
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
async fn instances_of_several_applications_share_a_virtual_address() {
    let Some(url) = real("EUREKA_URL") else {
        return;
    };
    let (eureka, vip) = (eureka(&url), unique("shop"));
    let instances = [("one", "a"), ("two", "b")].map(|(app, id)| (unique(app), unique(id)));
    for (app, id) in &instances {
        let body = serde_json::json!({"instance": {
            "instanceId": id, "app": app.to_uppercase(), "hostName": "h", "ipAddr": "10.0.0.1", "status": "UP",
            "vipAddress": format!("other,{vip}"), "port": {"$": 80, "@enabled": "true"},
            "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        }});
        let path = format!("{url}/apps/{}", app.to_uppercase());
        let request = reqwest::Client::new().post(path).json(&body);
        request.send().await.unwrap().error_for_status().unwrap();
    }
    let mut watching = Watching::start(&eureka.clone().by_vip(), &vip);
    let found = watching.until(|instances| instances.len() == 2).await;
    for (one, (app, id)) in found.iter().zip(&instances) {
        assert_eq!(one.id, *id);
        eureka.deregister(app, one).await.unwrap();
    }
    watching.until(<[Instance]>::is_empty).await;
}

#[tokio::test]
async fn what_one_server_is_told_its_peer_knows() {
    let (Some(one), Some(two)) = (real("EUREKA_URL"), real("EUREKA_2_URL")) else {
        return;
    };
    let (one, two) = (eureka(&one), eureka(&two));
    let (service, instance) = (unique("orders"), Instance::new(unique("a"), "10.0.0.1", 80));
    one.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&two, &service);
    watching.until(is_one(Status::Up)).await;
    // Another process than the one that registered it would renew it like this.
    let renewal = two.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    two.renew(&service, &instance, Status::Down).await.unwrap();
    let mut watching = Watching::start(&one, &service);
    watching.until(is_one(Status::Down)).await;
    two.deregister(&service, &instance).await.unwrap();
    watching.until(<[Instance]>::is_empty).await;
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
