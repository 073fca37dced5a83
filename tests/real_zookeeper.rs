//! Against the real ZooKeeper of `ZOOKEEPER_URL`.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::Resolver;
use buttress::clock;
use buttress::discovery::{
    ErrorKind, Freshness, Instance, Registered, Registration, Registry, Renewal, Status, Update,
};
use buttress::registries::zookeeper::ZooKeeper;
use futures_util::future::join_all;
use serde_json::{Value, json};
use watching::proxy::Proxy;
use watching::{TTL, Watching, is_one, real, unique};
use zookeeper_client::{Acls, Client, CreateMode};

/// A client past the registry.
async fn client(url: &str) -> Client {
    Client::connect(url).await.unwrap()
}

async fn put(client: &Client, path: &str, data: &[u8]) {
    let (folder, _) = path.rsplit_once('/').unwrap();
    let folders = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.mkdir(folder, &folders).await.unwrap();
    client.create(path, data, &folders).await.unwrap();
}

fn told(address: &str, port: u16) -> Vec<u8> {
    let data =
        json!({"name": "orders", "id": "x", "address": address, "port": port, "sslPort": null});
    data.to_string().into_bytes()
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

/// A network to the server at `url`, and the address at which it begins.
async fn network(url: &str) -> (Proxy, String) {
    let proxy = Proxy::start(&format!("http://{url}")).await;
    let address = proxy.url.trim_start_matches("http://").to_owned();
    (proxy, address)
}

#[tokio::test]
async fn where_nothing_is_yet_all_is_made_that_leads_there() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    // Not even the path that is given with the servers.
    let elsewhere = unique("team");
    let zookeeper = ZooKeeper::new(&format!("{url}/{elsewhere}")).unwrap();
    let service = unique("orders");
    let [a, b] = ["a", "b"].map(|id| Instance::new(id, "10.0.0.1", 80));
    let both = [zookeeper.clone(), zookeeper.base("")];
    for zookeeper in &both {
        let mut watching = Watching::start(zookeeper, &service);
        assert_eq!(watching.instances().await, []);
        zookeeper.register(&service, &a, TTL).await.unwrap();
        watching.until(|instances| ids(instances) == ["a"]).await;
        zookeeper.register(&service, &b, TTL).await.unwrap();
        watching
            .until(|instances| ids(instances) == ["a", "b"])
            .await;
        zookeeper.deregister(&service, &a).await.unwrap();
        watching.until(|instances| ids(instances) == ["b"]).await;
    }
    let client = client(&url).await;
    let folders = client.list_children(&format!("/{elsewhere}"));
    let mut folders = folders.await.unwrap();
    folders.sort();
    assert_eq!(folders, [&*service, "services"]);
}

#[tokio::test]
async fn a_heartbeat_tells_the_status_to_spring_cloud_as_well() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let zookeeper = ZooKeeper::new(&url).unwrap().spring_cloud();
    let service = unique("orders");
    let instance = Instance::new("a", "10.0.0.1", 80).status(Status::Starting);
    zookeeper.register(&service, &instance, TTL).await.unwrap();
    let mut watching = Watching::start(&zookeeper, &service);
    watching.until(is_one(Status::Starting)).await;
    use Status::{Down, OutOfService, Up};
    for status in [Up, OutOfService, Up, Down, Up] {
        let renewal = zookeeper.renew(&service, &instance, status).await;
        assert_eq!(renewal.unwrap(), Renewal::Renewed);
        watching.until(is_one(status)).await;
    }
}

#[tokio::test]
async fn what_is_written_is_what_curator_reads() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let instance = Instance::new("a", "10.0.0.1", 80).zone("z1");
    zookeeper.register(&service, &instance, TTL).await.unwrap();
    let client = client(&url).await;
    let (data, stat) = client
        .get_data(&format!("/services/{service}/a"))
        .await
        .unwrap();
    let data: Value = serde_json::from_slice(&data).unwrap();
    assert_ne!(stat.ephemeral_owner, 0);
    assert_eq!(data["name"], *service);
    assert_eq!(data["port"], 80);
    assert_eq!(data["payload"]["zone"], "z1");
    assert!(data["registrationTimeUTC"].as_u64() > Some(1_700_000_000_000));

    // What changes later does not change when it was registered.
    let renewal = zookeeper.renew(&service, &instance, Status::Down).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    let (later, _) = client
        .get_data(&format!("/services/{service}/a"))
        .await
        .unwrap();
    let later: Value = serde_json::from_slice(&later).unwrap();
    assert_eq!(later["registrationTimeUTC"], data["registrationTimeUTC"]);
    assert_eq!(later["enabled"], false);
    zookeeper.deregister(&service, &instance).await.unwrap();
}

#[tokio::test]
async fn a_child_that_makes_no_sense_does_not_hide_the_others_and_is_read_once_it_does() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let client = client(&url).await;
    let path = |id: &str| format!("/services/{service}/{id}");
    put(&client, &path("a"), &told("10.0.0.1", 80)).await;
    put(&client, &path("b"), b"{\"address\":").await;
    put(&client, &path("c"), &[0xff; 40]).await;
    put(&client, &path("d"), b"").await;
    let mut watching = Watching::start(&zookeeper, &service);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    client
        .set_data(&path("b"), &told("10.0.0.2", 80), None)
        .await
        .unwrap();
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    client
        .set_data(&path("a"), b"now this", None)
        .await
        .unwrap();
    assert_eq!(ids(&watching.instances().await), ["b"]);
}

#[tokio::test]
async fn a_service_in_two_spellings_is_one() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let mut watching = Watching::start(&zookeeper, &service);
    assert_eq!(watching.instances().await, []);
    let client = client(&url).await;
    let other = service.to_uppercase();
    put(&client, &format!("/services/{other}/a"), &told("h", 80)).await;
    watching.until(|instances| ids(instances) == ["a"]).await;
    put(&client, &format!("/services/{service}/b"), &told("h", 80)).await;
    watching
        .until(|instances| ids(instances) == ["a", "b"])
        .await;
    client
        .delete(&format!("/services/{other}/a"), None)
        .await
        .unwrap();
    client
        .delete(&format!("/services/{other}"), None)
        .await
        .unwrap();
    watching.until(|instances| ids(instances) == ["b"]).await;
}

#[tokio::test]
async fn a_service_that_comes_while_a_watch_of_it_begins_is_not_missed() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let client = client(&url).await;
    let found = (0..100).map(async |n| {
        let (team, service) = (unique(&format!("team-{n}")), unique("orders"));
        // With nothing above it, and with a folder in which it is the first.
        if n % 2 == 0 {
            put(&client, &format!("/{team}/services/other"), b"").await;
        }
        let zookeeper = ZooKeeper::new(&format!("{url}/{team}")).unwrap();
        let mut watching = Watching::start(&zookeeper, &service);
        clock::sleep(Duration::from_micros(100 * n)).await;
        let path = format!("/{team}/services/{service}/a");
        put(&client, &path, &told("h", 80)).await;
        let began = clock::now();
        watching.until(|instances| ids(instances) == ["a"]).await;
        clock::now() - began
    });
    let slowest = join_all(found).await.into_iter().max().unwrap();
    // Well before a watch that hears nothing looks again.
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
}

#[tokio::test]
async fn many_that_come_at_once_are_told_together_and_one_change_reads_one_node() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let client = client(&url).await;
    let path = |n: u32| format!("/services/{service}/{n:03}");
    for n in 0..300 {
        put(&client, &path(n), &told("h", 80)).await;
    }
    let mut watching = Watching::start(&zookeeper, &service);
    assert_eq!(watching.instances().await.len(), 300);
    client
        .set_data(&path(7), &told("elsewhere", 80), None)
        .await
        .unwrap();
    let found = watching.instances().await;
    assert_eq!((found.len(), &*found[7].host), (300, "elsewhere"));
    let began = clock::now();
    for n in 0..300 {
        client.delete(&path(n), None).await.unwrap();
    }
    let mut lists = 0;
    watching
        .until(|instances| {
            lists += 1;
            instances.is_empty()
        })
        .await;
    // Fifty a second.
    let took = clock::now() - began;
    let most = took.as_millis() / 20 + 2;
    assert!(lists <= most, "{lists} lists in {took:?}");
}

#[tokio::test]
async fn one_of_an_earlier_session_is_replaced_and_never_seen_gone() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let [first, second] = [(); 2].map(|()| ZooKeeper::new(&url).unwrap());
    let service = unique("orders");
    let [old, new] = ["10.0.0.1", "10.0.0.2"].map(|host| Instance::new("a", host, 80));
    first.register(&service, &old, TTL).await.unwrap();
    let mut watching = Watching::start(&first, &service);
    assert_eq!(watching.instances().await, std::slice::from_ref(&old));
    second.register(&service, &new, TTL).await.unwrap();
    assert_eq!(watching.instances().await, std::slice::from_ref(&new));

    // The two do not quarrel, and the one that stays comes back.
    let renewal = first.renew(&service, &old, Status::Down).await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    second.deregister(&service, &new).await.unwrap();
    assert_eq!(watching.instances().await, []);
    let renewal = first.renew(&service, &old, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown);
    first.register(&service, &old, TTL).await.unwrap();
    assert_eq!(watching.instances().await, std::slice::from_ref(&old));

    // Who leaves takes only what is theirs.
    second.register(&service, &new, TTL).await.unwrap();
    assert_eq!(watching.instances().await, std::slice::from_ref(&new));
    first.deregister(&service, &old).await.unwrap();
    let mut later = Watching::start(&second, &service);
    assert_eq!(later.instances().await, [new]);
}

#[tokio::test]
async fn a_watch_that_hears_nothing_is_confirmed_from_time_to_time() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let client = client(&url).await;
    put(&client, &format!("/services/{service}/a"), &told("h", 80)).await;
    let mut watching = Watching::start(&zookeeper, &service);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_in_its_session() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let client = client(&url).await;
    let path = |id: &str| format!("/services/{service}/{id}");
    for id in ["a", "b"] {
        put(&client, &path(id), &told("h", 80)).await;
    }
    let (proxy, address) = network(&url).await;
    let mut watching = Watching::start(&ZooKeeper::new(&address).unwrap(), &service);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    proxy.cut();
    match watching.next().await {
        Update::Failed(error) => assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}"),
        other => panic!("expected a failure, got {other:?}"),
    }
    client
        .set_data(&path("a"), &told("elsewhere", 80), None)
        .await
        .unwrap();
    client.delete(&path("b"), None).await.unwrap();
    put(&client, &path("c"), &told("h", 80)).await;
    proxy.mend();
    let found = watching
        .until(|instances| ids(instances) == ["a", "c"] && instances[0].host == "elsewhere");
    found.await;

    // Its watches are set again as well.
    client.delete(&path("c"), None).await.unwrap();
    watching.until(|instances| ids(instances) == ["a"]).await;
    drop(zookeeper);
}

#[tokio::test]
async fn a_session_that_expires_is_followed_by_another_and_told_as_one_difference() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let service = unique("orders");
    let client = client(&url).await;
    let path = |id: &str| format!("/services/{service}/{id}");
    for id in ["a", "b", "c"] {
        put(&client, &path(id), &told("h", 80)).await;
    }
    let (proxy, address) = network(&url).await;
    let there = ZooKeeper::new(&address).unwrap();
    let d = Instance::new("d", "10.0.0.1", 80);
    let registered = Registration::new(there.clone(), &*service, d)
        .ttl(Duration::from_secs(3))
        .start();
    registered.registered().await.unwrap();
    let watch = Resolver::new(there).watch(&*service);
    let before = watch.resolved().await.unwrap();
    assert_eq!(before.instances().len(), 4);

    proxy.cut();
    let mut here = Watching::start(&ZooKeeper::new(&url).unwrap(), &service);
    here.until(|instances| ids(instances) == ["a", "b", "c"])
        .await;
    client.delete(&path("b"), None).await.unwrap();
    put(&client, &path("e"), &told("h", 80)).await;
    // Longer than the sessions for watches last.
    clock::sleep(Duration::from_secs(16)).await;
    assert!(matches!(watch.freshness(), Freshness::Stale { .. }));
    assert_eq!(watch.snapshot().version(), before.version());
    proxy.mend();
    here.until(|instances| ids(instances) == ["a", "c", "d", "e"])
        .await;
    let mut now = watch.changed(before.version()).await;
    // The registration may come back after the watch.
    while now.instances().len() != 4 {
        now = watch.changed(now.version()).await;
        assert!(now.version() <= before.version() + 2);
    }
    let ids: Vec<_> = now.instances().iter().map(|i| i.id.clone()).collect();
    assert_eq!(ids, ["a", "c", "d", "e"]);
    registered.deregister().await.unwrap();
}

#[tokio::test]
async fn all_ephemerals_gone_at_once_are_doubted() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let session = client(&url).await;
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let folders = CreateMode::Persistent.with_acls(Acls::anyone_all());
    session
        .mkdir(&format!("/services/{service}"), &folders)
        .await
        .unwrap();
    for id in ["a", "b", "c", "d"] {
        let path = format!("/services/{service}/{id}");
        session
            .create(&path, &told("h", 80), &ephemeral)
            .await
            .unwrap();
    }
    let watch = Resolver::new(zookeeper.clone()).watch(&*service);
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 4);
    drop(session);
    Watching::start(&zookeeper, &service)
        .until(|instances| instances.is_empty())
        .await;
    clock::sleep(Duration::from_secs(1)).await;
    assert_eq!(watch.resolved().await.unwrap().instances().len(), 4, "held");
}

#[tokio::test]
async fn without_the_right_user_it_is_a_clear_denial() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let place = format!("{url}/{}", unique("team"));
    let service = unique("orders");
    let a = Instance::new("a", "10.0.0.1", 80);
    let owner = ZooKeeper::new(&place).unwrap().user("owner", "r1ght\n");
    owner.register(&service, &a, TTL).await.unwrap();
    let none = ZooKeeper::new(&place).unwrap();
    let wrong = ZooKeeper::new(&place).unwrap().user("owner", "wr0ng");
    for zookeeper in [none, wrong] {
        // To read is everybody's.
        let found = Watching::start(&zookeeper, &service)
            .until(is_one(Status::Up))
            .await;
        assert_eq!(found, std::slice::from_ref(&a));
        for id in ["a", "b"] {
            let other = Instance::new(id, "10.0.0.2", 80);
            let error = zookeeper.register(&service, &other, TTL).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        }
        let error = zookeeper.deregister(&service, &a).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!format!("{error:?} {}", error.message()).contains("wr0ng"));
    }

    // What only the owner may read.
    let client = Client::connector().with_auth("digest", b"owner:r1ght");
    let client = client.connect(&url).await.unwrap();
    let path = place.trim_start_matches(&*url).to_owned() + "/services/" + &service;
    client
        .set_acl(&format!("{path}/a"), &Acls::creator_all(), None)
        .await
        .unwrap();
    let error = Watching::start(&ZooKeeper::new(&place).unwrap(), &service)
        .error()
        .await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    client
        .set_acl(&path, &Acls::creator_all(), None)
        .await
        .unwrap();
    let error = Watching::start(&ZooKeeper::new(&place).unwrap(), &service)
        .error()
        .await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    Watching::start(&owner, &service)
        .until(is_one(Status::Up))
        .await;
    owner.deregister(&service, &a).await.unwrap();
}

#[tokio::test]
async fn of_two_servers_the_one_that_answers_is_asked() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let service = unique("orders");
    for servers in [format!("127.0.0.1:1,{url}"), format!("{url}, 127.0.0.1:1")] {
        let zookeeper = ZooKeeper::new(&servers).unwrap();
        let a = Instance::new("a", "h", 80);
        zookeeper.register(&service, &a, TTL).await.unwrap();
        let mut watching = Watching::start(&zookeeper, &service);
        assert_eq!(ids(&watching.instances().await), ["a"]);
    }
}

#[tokio::test]
async fn what_can_be_no_node_is_refused() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let zookeeper = ZooKeeper::new(&url).unwrap();
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let a = Instance::new(name, "h", 80);
        let error = zookeeper.register("orders", &a, TTL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let error = Watching::start(&zookeeper, name).error().await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_process_that_dies_leaves_when_its_lease_does_and_one_that_lives_stays() {
    let Some(url) = real("ZOOKEEPER_URL") else {
        return;
    };
    let (zookeeper, service) = (ZooKeeper::new(&url).unwrap(), unique("orders"));
    let start = |id: &str| -> Registered {
        let instance = Instance::new(id, "10.0.0.1", 80);
        let registration = Registration::new(zookeeper.clone(), &*service, instance);
        registration.ttl(Duration::from_secs(3)).start()
    };
    let (dies, lives) = (start("a"), start("b"));
    let mut watching = Watching::start(&zookeeper, &service);
    watching
        .until(|instances| ids(instances) == ["a", "b"])
        .await;
    dies.abandon();
    watching.until(|instances| ids(instances) == ["b"]).await;
    clock::sleep(Duration::from_secs(4)).await;
    let mut later = Watching::start(&zookeeper, &service);
    assert_eq!(ids(&later.instances().await), ["b"]);
    drop(lives);
    watching.until(|instances| instances.is_empty()).await;
}
