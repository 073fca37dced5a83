//! Against the real etcd of `ETCD_URL`, and the one of `ETCD_AUTH_URL` that denies what does not come from
//! `ETCD_AUTH_USER` with `ETCD_AUTH_PASSWORD`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buttress::clock;
use buttress::discovery::{
    ErrorKind, Instance, Registered, Registration, Registry, Renewal, Status, Update,
};
use buttress::registries::etcd::Etcd;
use serde_json::{Value, json};
use watching::proxy::Proxy;
use watching::{TTL, Watching, is_one, real, unique};

/// Asks etcd past the registry.
async fn ask(url: &str, path: &str, token: Option<&str>, body: Value) -> Value {
    let mut request = reqwest::Client::new().post(format!("{url}/v3/{path}"));
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let answer = request.json(&body).send().await;
    answer.unwrap().json().await.unwrap()
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

async fn put(url: &str, key: &str, value: &str) {
    ask(
        url,
        "kv/put",
        None,
        json!({"key": base64(key), "value": base64(value)}),
    )
    .await;
}

async fn delete(url: &str, key: &str) {
    let answer = ask(url, "kv/deleterange", None, json!({"key": base64(key)})).await;
    assert_eq!(answer["deleted"], "1", "{answer}");
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

#[tokio::test]
async fn an_instance_whose_lease_was_revoked_registers_again() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let (etcd, service) = (Etcd::new(&url).unwrap(), unique("orders"));
    let instance = Instance::new("a", "10.0.0.1", 80);
    etcd.register(&service, &instance, TTL).await.unwrap();
    let key = json!({"key": base64(&format!("{service}/a"))});
    let found = ask(&url, "kv/range", None, key).await;
    let lease = json!({"ID": found["kvs"][0]["lease"]});
    ask(&url, "lease/revoke", None, lease).await;
    let renewal = etcd.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
    etcd.register(&service, &instance, TTL).await.unwrap();
    let renewal = etcd.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    etcd.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn what_other_clients_write_is_read_and_what_cannot_be_called_is_left_out() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let (etcd, service) = (Etcd::new(&url).unwrap().prefix("/team/"), unique("orders"));
    let mut watching = Watching::start(&etcd, &service);
    assert_eq!(watching.instances().await, []);
    put(&url, &format!("/team/{service}/x"), "10.0.0.9:80").await;
    put(
        &url,
        &format!("/team/{service}-too/y"),
        r#"{"Op":0,"Addr":"10.0.0.8:80","Metadata":null}"#,
    )
    .await;
    put(
        &url,
        &format!("/team/{service}/a"),
        r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"zone":"z","weight":2}}"#,
    )
    .await;
    assert_eq!(
        watching.instances().await,
        [Instance::new("a", "10.0.0.1", 80).zone("z").weight(2)]
    );

    // Without a lease, nobody but somebody can have deleted it.
    delete(&url, &format!("/team/{service}/a")).await;
    assert_eq!(watching.instances().await[0].status, Status::OutOfService);
    assert_eq!(watching.instances().await, []);
}

#[tokio::test]
async fn who_leaves_is_out_of_service_before_it_is_gone_and_who_is_lost_is_not() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let (etcd, service) = (Etcd::new(&url).unwrap(), unique("orders"));
    let a = Instance::new("a", "10.0.0.1", 80);
    etcd.register(&service, &a, TTL).await.unwrap();
    let mut watching = Watching::start(&etcd, &service);
    assert_eq!(watching.instances().await, std::slice::from_ref(&a));
    etcd.deregister(&service, &a).await.unwrap();
    assert_eq!(watching.instances().await[0].status, Status::OutOfService);
    assert_eq!(watching.instances().await, []);

    etcd.register(&service, &a, TTL).await.unwrap();
    assert_eq!(watching.instances().await, std::slice::from_ref(&a));
    delete(&url, &format!("{service}/a")).await;
    assert_eq!(watching.instances().await, []);
}

#[tokio::test]
async fn two_with_one_id_do_not_quarrel_and_the_one_that_stays_comes_back() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let [first, second] = [(); 2].map(|()| Etcd::new(&url).unwrap());
    let service = unique("orders");
    let [old, new] = ["10.0.0.1", "10.0.0.2"].map(|host| Instance::new("a", host, 80));
    first.register(&service, &old, TTL).await.unwrap();
    second.register(&service, &new, TTL).await.unwrap();
    let renewal = first.renew(&service, &old, Status::Down).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    let mut watching = Watching::start(&first, &service);
    assert_eq!(watching.instances().await, std::slice::from_ref(&new));
    second.deregister(&service, &new).await.unwrap();
    let renewal = first.renew(&service, &old, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
}

#[tokio::test]
async fn a_watch_that_hears_nothing_is_confirmed_from_time_to_time() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let (etcd, service) = (Etcd::new(&url).unwrap(), unique("orders"));
    etcd.register(&service, &Instance::new("a", "h", 80), TTL)
        .await
        .unwrap();
    let mut watching = Watching::start(&etcd, &service);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(watching.next().await, Update::Confirmed);
}

/// A watch of `a` and `b` that has lasted long enough to be begun again where it breaks off.
async fn lasting(url: &str, service: &str) -> (Proxy, Etcd, Watching) {
    let (proxy, etcd) = (Proxy::start(url).await, Etcd::new(url).unwrap());
    for id in ["a", "b"] {
        let instance = Instance::new(id, "10.0.0.1", 80);
        // Longer than the test takes.
        etcd.register(service, &instance, 5 * TTL).await.unwrap();
    }
    let mut watching = Watching::start(&Etcd::new(&proxy.url).unwrap(), service);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    // The first confirmation comes later than that.
    assert_eq!(watching.next().await, Update::Confirmed);
    proxy.cut();
    (proxy, etcd, watching)
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_from_where_it_was() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let service = unique("orders");
    let (proxy, etcd, mut watching) = lasting(&url, &service).await;
    let b = Instance::new("b", "10.0.0.1", 80);
    etcd.deregister(&service, &b).await.unwrap();
    let c = Instance::new("c", "10.0.0.1", 80);
    etcd.register(&service, &c, TTL).await.unwrap();
    proxy.mend();
    // That `b` left on purpose could not be read from what there is now.
    let mut left = false;
    let now = watching.until(|instances| {
        let mut out = instances
            .iter()
            .filter(|i| i.status == Status::OutOfService);
        left |= out.any(|instance| instance.id == "b");
        ids(instances) == ["a", "c"]
    });
    now.await;
    assert!(left);
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn what_was_compacted_in_the_meantime_is_read_again_and_told_at_once() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let service = unique("orders");
    let (proxy, etcd, mut watching) = lasting(&url, &service).await;
    let b = Instance::new("b", "10.0.0.1", 80);
    etcd.deregister(&service, &b).await.unwrap();
    for id in ["c", "d"] {
        let instance = Instance::new(id, "10.0.0.1", 80);
        etcd.register(&service, &instance, TTL).await.unwrap();
    }
    let range = ask(&url, "kv/range", None, json!({"key": base64("x")})).await;
    let compact = json!({"revision": range["header"]["revision"]});
    let compacted = ask(&url, "kv/compaction", None, compact).await;
    assert!(compacted["header"].is_object(), "{compacted}");
    proxy.mend();
    assert_eq!(ids(&watching.instances().await), ["a", "c", "d"]);
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn of_two_members_the_one_that_answers_is_asked() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let service = unique("orders");
    for endpoints in [
        format!("http://127.0.0.1:1,{url}"),
        format!("{url}, http://127.0.0.1:1"),
    ] {
        let etcd = Etcd::new(&endpoints).unwrap();
        let a = Instance::new("a", "h", 80);
        etcd.register(&service, &a, TTL).await.unwrap();
        let mut watching = Watching::start(&etcd, &service);
        assert_eq!(ids(&watching.instances().await), ["a"]);
    }
}

fn root() -> Option<(String, Etcd)> {
    let url = real("ETCD_AUTH_URL")?;
    let [user, password] = ["ETCD_AUTH_USER", "ETCD_AUTH_PASSWORD"].map(real);
    let etcd = Etcd::new(&url).unwrap().user(user?, password? + "\n");
    Some((url, etcd))
}

#[tokio::test]
async fn without_the_right_user_it_is_a_clear_denial() {
    let Some((url, right)) = root() else {
        return;
    };
    let service = unique("orders");
    let instance = Instance::new("a", "10.0.0.1", 80);
    right.register(&service, &instance, TTL).await.unwrap();
    Watching::start(&right, &service)
        .until(is_one(Status::Up))
        .await;

    let none = Etcd::new(&url).unwrap();
    let wrong = Etcd::new(&url).unwrap().user("root", "n0t-1t");
    for (etcd, said) in [
        (none, "user name is empty"),
        (wrong, "invalid user ID or password"),
    ] {
        let error = Watching::start(&etcd, &service).error().await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.message().contains(said), "{error}");
        let error = etcd.register(&service, &instance, TTL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    right.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn a_token_that_expired_or_was_made_void_is_replaced() {
    let Some((url, etcd)) = root() else {
        return;
    };
    let service = unique("orders");
    let instance = Instance::new("a", "10.0.0.1", 80);
    etcd.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&etcd, &service);
    watching.until(is_one(Status::Up)).await;

    // Longer than an unused token lives there.
    clock::sleep(Duration::from_secs(4)).await;
    let renewal = etcd.renew(&service, &instance, Status::Down).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    watching.until(is_one(Status::Down)).await;

    // Any change of the users makes all tokens void.
    let credentials = ["ETCD_AUTH_USER", "ETCD_AUTH_PASSWORD"].map(|name| real(name).unwrap());
    let body = json!({"name": credentials[0], "password": credentials[1]});
    let token = ask(&url, "auth/authenticate", None, body).await;
    let user = unique("somebody");
    let added = json!({"name": user, "password": "s0mebody"});
    let added = ask(&url, "auth/user/add", token["token"].as_str(), added).await;
    assert!(added["header"].is_object(), "{added}");
    let renewal = etcd.renew(&service, &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    watching.until(is_one(Status::Up)).await;
    let mut another = Watching::start(&etcd, &service);
    another.until(is_one(Status::Up)).await;
    etcd.deregister(&service, &instance).await.unwrap();

    // Without a right to anything.
    let nobody = Etcd::new(&url).unwrap().user(user, "s0mebody");
    let error = Watching::start(&nobody, &service).error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("permission denied"), "{error}");
}

#[tokio::test]
async fn a_user_is_not_needed_where_there_are_none() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let etcd = Etcd::new(&url).unwrap().user("root", "secret");
    assert_eq!(
        Watching::start(&etcd, &unique("orders")).instances().await,
        []
    );
}

#[tokio::test]
async fn a_process_that_dies_leaves_when_its_lease_does_and_one_that_lives_stays() {
    let Some(url) = real("ETCD_URL") else {
        return;
    };
    let (etcd, service) = (Etcd::new(&url).unwrap(), unique("orders"));
    let start = |id: &str| -> Registered {
        let instance = Instance::new(id, "10.0.0.1", 80);
        let registration = Registration::new(etcd.clone(), &*service, instance);
        registration.ttl(Duration::from_secs(3)).start()
    };
    let (dies, lives) = (start("a"), start("b"));
    let mut watching = Watching::start(&etcd, &service);
    watching
        .until(|instances| ids(instances) == ["a", "b"])
        .await;
    dies.abandon();
    watching.until(|instances| ids(instances) == ["b"]).await;
    clock::sleep(Duration::from_secs(4)).await;
    let mut later = Watching::start(&etcd, &service);
    assert_eq!(ids(&later.instances().await), ["b"]);
    drop(lives);
    watching.until(|instances| instances.is_empty()).await;
}
