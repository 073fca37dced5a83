//! What Eureka may say on the wire, and what is made of it.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Renewal, Resolver, Status, Update};
use buttress::registries::eureka::Eureka;
use serde_json::{Value, json};
use watching::Watching;
use wire::{Reply, Server};

const FULL: &str = "GET /apps";
const DELTA: &str = "GET /apps/delta";

fn instance(id: &str, status: &str) -> Value {
    json!({
        "instanceId": id,
        "hostName": format!("{id}.local"),
        "app": "ORDERS",
        "ipAddr": "10.0.0.1",
        "status": status,
        "port": {"$": 80, "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"},
        "dataCenterInfo": {"@class": "x", "name": "MyOwn"},
        "metadata": {"@class": "java.util.Collections$EmptyMap"},
        "actionType": "ADDED",
    })
}

fn changed(action: &str, mut instance: Value) -> Value {
    instance["actionType"] = action.into();
    instance
}

fn apps(hash: &str, application: Value) -> Reply {
    let apps = json!({"applications": {
        "versions__delta": "1", "apps__hashcode": hash, "application": application,
    }});
    Reply::json(apps.to_string())
}

fn orders(hash: &str, instances: impl Into<Value>) -> Reply {
    apps(
        hash,
        json!([{"name": "ORDERS", "instance": instances.into()}]),
    )
}

fn eureka(server: &Server) -> Eureka {
    Eureka::new(&server.url())
        .unwrap()
        .poll(Duration::from_millis(100))
}

async fn watching(replies: Vec<Reply>) -> (Server, Watching) {
    let server = Server::script(replies).await;
    let watching = Watching::start(&eureka(&server), "orders");
    (server, watching)
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

async fn described(instance: Value) -> Vec<Instance> {
    watching(vec![orders("UP_1_", vec![instance])])
        .await
        .1
        .instances()
        .await
}

#[tokio::test]
async fn changes_are_applied_one_after_the_other() {
    let (server, mut watching) = watching(vec![
        orders("UP_1_", vec![instance("a", "UP")]),
        orders("UP_2_", vec![changed("ADDED", instance("b", "UP"))]),
        orders(
            "DOWN_1_UP_1_",
            vec![changed("MODIFIED", instance("b", "DOWN"))],
        ),
        orders("DOWN_1_", vec![changed("DELETED", instance("a", "UP"))]),
    ])
    .await;
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    let instances = watching.instances().await;
    assert_eq!(instances[1].status, Status::Down);
    assert_eq!(ids(&watching.instances().await), ["b"]);
    assert_eq!(server.lines(), [FULL, DELTA, DELTA, DELTA]);
}

#[tokio::test]
async fn repeated_changes_change_nothing() {
    let delta = || orders("UP_2_", vec![changed("ADDED", instance("b", "UP"))]);
    let (_server, mut watching) = watching(vec![
        orders("UP_1_", vec![instance("a", "UP")]),
        delta(),
        delta(),
    ])
    .await;
    watching.instances().await;
    watching.instances().await;
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn changes_that_do_not_add_up_make_it_read_everything() {
    let both = || vec![instance("a", "UP"), instance("c", "UP")];
    let (server, mut watching) = watching(vec![
        orders("UP_1_", vec![instance("a", "UP")]),
        orders("UP_3_", vec![changed("ADDED", instance("b", "UP"))]),
        orders("UP_2_", both()),
        orders("UP_2_", json!([])),
    ])
    .await;
    watching.instances().await;
    assert_eq!(
        ids(&watching.instances().await),
        ["a", "c"],
        "never the copy that did not add up"
    );
    assert_eq!(watching.next().await, Update::Confirmed);
    assert_eq!(server.lines(), [FULL, DELTA, FULL, DELTA]);
}

#[tokio::test]
async fn the_hash_counts_every_status_of_every_application() {
    let strange = json!([
        {"name": "ORDERS", "instance": [instance("a", "UP"), instance("b", "OUT_OF_SERVICE")]},
        {"name": "OTHER", "instance": [instance("c", "STARTING"), instance("d", "WHATEVER"), instance("e", "UP")]},
    ]);
    let hash = "OUT_OF_SERVICE_1_STARTING_1_UNKNOWN_1_UP_2_";
    let (server, mut watching) = watching(vec![apps(hash, strange), apps(hash, json!([]))]).await;
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    assert_eq!(watching.next().await, Update::Confirmed);
    assert_eq!(server.lines(), [FULL, DELTA]);
}

#[tokio::test]
async fn refused_changes_make_it_read_everything() {
    for status in ["403 Forbidden", "404 Not Found"] {
        let (server, mut watching) = watching(vec![
            orders("UP_1_", vec![instance("a", "UP")]),
            Reply::status(status, ""),
            orders("UP_1_", vec![instance("b", "UP")]),
        ])
        .await;
        watching.instances().await;
        assert_eq!(ids(&watching.instances().await), ["b"]);
        assert_eq!(server.lines(), [FULL, DELTA, FULL]);
    }
}

#[tokio::test]
async fn all_services_share_one_poll() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::start(move |n, _| {
        count.fetch_add(1, Ordering::SeqCst);
        match n {
            0 => apps(
                "UP_2_",
                json!([
                    {"name": "ORDERS", "instance": [instance("a", "UP")]},
                    {"name": "STOCK", "instance": [instance("b", "UP")]},
                ]),
            ),
            _ => apps("UP_2_", json!([])),
        }
    })
    .await;
    let eureka = Eureka::new(&server.url())
        .unwrap()
        .poll(Duration::from_secs(1));
    let mut orders = Watching::start(&eureka, "orders");
    let mut stock = Watching::start(&eureka.clone(), "Stock");
    assert_eq!(ids(&orders.instances().await), ["a"]);
    assert_eq!(ids(&stock.instances().await), ["b"]);
    // One who comes later gets the list that is there.
    let mut late = Watching::start(&eureka, "ORDERS");
    assert_eq!(ids(&late.instances().await), ["a"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    for watching in [&mut orders, &mut stock, &mut late] {
        assert_eq!(watching.next().await, Update::Confirmed);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // Whoever polls may go; another takes over.
    orders.ended.abort();
    assert_eq!(stock.next().await, Update::Confirmed);
    late.ended.abort();
    assert_eq!(stock.next().await, Update::Confirmed);
}

#[tokio::test]
async fn a_server_that_fails_is_not_asked_more_often_for_more_services() {
    let server = Server::start(|_, _| Reply::status("503 Service Unavailable", "")).await;
    let resolver = Resolver::new(Eureka::new(&server.url()).unwrap());
    let _watches: Vec<_> = (0..50)
        .map(|n| resolver.watch(format!("service-{n}")))
        .collect();
    clock::sleep(Duration::from_millis(4500)).await;
    let asked = server.lines().len();
    assert!((2..=6).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_old_copy_is_read_again_in_full() {
    let server = Server::start(|_, _| orders("UP_1_", vec![instance("a", "UP")])).await;
    let eureka = eureka(&server);
    let mut watching = Watching::start(&eureka, "orders");
    watching.instances().await;
    watching.ended.abort();
    tokio::time::pause();
    clock::sleep(Duration::from_secs(130)).await;
    tokio::time::resume();
    let before = server.lines().len();
    Watching::start(&eureka, "orders").instances().await;
    assert_eq!(server.lines()[before], FULL);
}

#[tokio::test]
async fn what_the_changes_never_told_and_the_hash_does_not_count_is_known_after_20_minutes() {
    let server = Server::start(|n, request| {
        let mut a = instance("a", "UP");
        a["metadata"]["weight"] = if n == 0 { "1" } else { "2" }.into();
        match &*request.line {
            DELTA => orders("UP_1_", json!([])),
            _ => orders("UP_1_", vec![a]),
        }
    })
    .await;
    let eureka = eureka(&server);
    let weight = async || {
        let mut watching = Watching::start(&eureka, "orders");
        let weight = watching.instances().await[0].weight;
        watching.ended.abort();
        weight
    };
    assert_eq!(weight().await, 1);
    for minute in 1..=20 {
        tokio::time::pause();
        clock::sleep(Duration::from_secs(60)).await;
        tokio::time::resume();
        let weight = weight().await;
        match minute {
            ..10 => assert_eq!(weight, 1),
            10..20 => {} // By chance, lest all clients read at once.
            20.. => assert_eq!(weight, 2),
        }
    }
}

#[tokio::test]
async fn an_unknown_service_has_no_instances() {
    let (_server, mut watching1) = watching(vec![apps("", json!([]))]).await;
    assert_eq!(watching1.instances().await, []);
    let bare = Reply::json(r#"{"applications":{"versions__delta":"1","apps__hashcode":""}}"#);
    let (_server, mut watching2) = watching(vec![bare]).await;
    assert_eq!(watching2.instances().await, []);
}

#[tokio::test]
async fn one_of_a_kind_may_stand_without_a_list() {
    let single = apps(
        "UP_1_",
        json!({"name": "orders", "instance": instance("a", "UP")}),
    );
    let (_server, mut watching) = watching(vec![single]).await;
    assert_eq!(ids(&watching.instances().await), ["a"]);
}

#[tokio::test]
async fn ports_come_in_every_type_and_an_enabled_secure_one_is_used() {
    let open = [json!("true"), json!(true)];
    let shut = [json!("false"), json!(false), json!(null)];
    for number in [json!(8080), json!("8080")] {
        for (open, shut) in open
            .iter()
            .flat_map(|open| shut.iter().map(move |shut| (open, shut)))
        {
            let port = |enabled| json!({"$": number, "@enabled": enabled});
            let mut found = instance("a", "UP");
            (found["port"], found["securePort"]) = (port(open), port(shut));
            let plain = described(found.clone()).await.remove(0);
            assert_eq!((plain.port, plain.secure), (8080, false));

            (found["port"], found["securePort"]) = (json!({"$": 80, "@enabled": open}), port(open));
            let secure = described(found.clone()).await.remove(0);
            assert_eq!((secure.port, secure.secure), (8080, true));

            (found["port"], found["securePort"]) = (port(shut), port(shut));
            assert_eq!(described(found).await, []);
        }
    }
}

#[tokio::test]
async fn an_instance_is_described_by_what_there_is() {
    let mut full = instance("a", "UP");
    full["metadata"] =
        json!({"@class": "x", "zone": "z", "weight": "5", "k": "v", "n": 1, "nothing": null});
    let found = described(full).await.remove(0);
    let wanted = Instance::new("a", "a.local", 80).zone("z").weight(5);
    assert_eq!(found, wanted.metadata("k", "v").metadata("n", "1"));

    let mut bare = json!({"hostName": "h", "port": {"$": 80, "@enabled": "true"}, "status": "UP"});
    assert_eq!(described(bare.clone()).await, [Instance::new("h", "h", 80)]);

    bare["dataCenterInfo"] =
        json!({"name": "Amazon", "metadata": {"instance-id": "i-1", "availability-zone": "eu-1a"}});
    assert_eq!(
        described(bare.clone()).await,
        [Instance::new("i-1", "h", 80).zone("eu-1a")]
    );

    bare["hostName"] = json!(null);
    bare["ipAddr"] = json!("10.0.0.9");
    assert_eq!(
        described(bare).await,
        [Instance::new("i-1", "10.0.0.9", 80).zone("eu-1a")]
    );
}

#[tokio::test]
async fn statuses_are_told_apart() {
    for (text, status) in [
        ("UP", Status::Up),
        ("STARTING", Status::Starting),
        ("OUT_OF_SERVICE", Status::OutOfService),
        ("DOWN", Status::Down),
        ("UNKNOWN", Status::Down),
        ("GREEN", Status::Down),
    ] {
        assert_eq!(described(instance("a", text)).await[0].status, status);
    }
}

#[tokio::test]
async fn whatever_is_no_answer_ends_the_watch_with_its_reason() {
    let truncated = || orders("UP_1_", vec![instance("a", "UP")]).cut();
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (
            Reply::status("500 Internal Server Error", "oops"),
            ErrorKind::Failed,
            "500 Internal Server Error: oops",
        ),
        (
            Reply::status("503 Service Unavailable", ""),
            ErrorKind::Failed,
            "503",
        ),
        (
            Reply::status("401 Unauthorized", ""),
            ErrorKind::Denied,
            "401",
        ),
        (
            Reply::status("403 Forbidden", ""),
            ErrorKind::Failed,
            "just started",
        ),
        (
            Reply::json("<applications/>"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::json("{}"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::json(r#"{"applications":{"application":[{"name":"#),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (truncated(), ErrorKind::Unreachable, "broke off"),
        (Reply::Raw(Vec::new()), ErrorKind::Unreachable, "broke off"),
    ];
    for (reply, kind, text) in table {
        let (_server, watching) = watching(vec![reply]).await;
        let error = watching.error().await;
        assert_eq!(error.kind(), kind, "{}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
    }
}

#[tokio::test]
async fn changes_that_cannot_be_read_end_the_watch_and_the_next_one_begins_where_it_was() {
    let server = Server::script(vec![
        orders("UP_1_", vec![instance("a", "UP")]),
        Reply::status("500 Internal Server Error", ""),
        orders("UP_2_", vec![instance("b", "UP")]),
    ])
    .await;
    let eureka = eureka(&server);
    let mut first = Watching::start(&eureka, "orders");
    first.instances().await;
    assert_eq!(first.error().await.kind(), ErrorKind::Failed);
    assert_eq!(
        ids(&Watching::start(&eureka, "orders").instances().await),
        ["a", "b"]
    );
    assert_eq!(server.lines(), [FULL, DELTA, DELTA]);
}

#[tokio::test]
async fn a_huge_answer_is_refused_before_it_is_all_read() {
    let mut raw = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    raw.resize(48 * 1024 * 1024, b' ');
    let (_server, watching) = watching(vec![Reply::Raw(raw)]).await;
    let error = watching.error().await;
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.message().contains("longer than"), "{error}");
}

#[tokio::test]
async fn requests_ask_for_json_and_for_no_encoding_but_gzip() {
    let (server, mut watching) = watching(vec![apps("", json!([]))]).await;
    watching.instances().await;
    let head = server.asked()[0].head.clone();
    assert!(head.contains("accept: application/json\r\n"), "{head}");
    assert!(
        !head.contains("accept-encoding") || head.contains("gzip"),
        "{head}"
    );
}

#[tokio::test]
async fn the_urls_user_and_password_go_into_a_header() {
    let server = Server::script(vec![apps("", json!([]))]).await;
    let url = format!("http://u:p%40ss@{}/eureka/", server.address);
    let eureka = Eureka::new(&url).unwrap();
    assert_eq!(
        eureka.name(),
        format!("eureka at http://{}/eureka", server.address)
    );
    Watching::start(&eureka, "orders").instances().await;
    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /eureka/apps");
    // `u:p@ss`; the head is kept in lower case.
    assert!(
        asked[0].head.contains("authorization: basic dtpwqhnz\r\n"),
        "{}",
        asked[0].head
    );
}

#[tokio::test]
async fn registration_describes_the_instance_and_its_lease() {
    let server = Server::script(vec![Reply::status("204 No Content", "")]).await;
    let instance = Instance::new("a", "10.0.0.1", 8443)
        .secure(true)
        .zone("z")
        .weight(3)
        .metadata("k", "v");
    eureka(&server)
        .register("orders", &instance, Duration::from_secs(30))
        .await
        .unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /apps/ORDERS");
    let mut body: Value = serde_json::from_str(&asked[0].body).unwrap();
    let written = body["instance"]["lastDirtyTimestamp"].take();
    assert!(written.as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000);
    assert_eq!(
        body["instance"],
        json!({
            "instanceId": "a",
            "app": "ORDERS",
            "hostName": "10.0.0.1",
            "ipAddr": "10.0.0.1",
            "vipAddress": "orders",
            "secureVipAddress": "orders",
            "status": "UP",
            "port": {"$": 8443, "@enabled": "false"},
            "securePort": {"$": 8443, "@enabled": "true"},
            "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
            "leaseInfo": {"renewalIntervalInSecs": 10, "durationInSecs": 30},
            "metadata": {"k": "v", "zone": "z", "weight": "3"},
            "lastDirtyTimestamp": null,
        })
    );
}

#[tokio::test]
async fn an_applications_name_is_in_upper_case_in_the_path() {
    let server = Server::start(|_, _| Reply::json("")).await;
    let (eureka, instance) = (eureka(&server), Instance::new("Aa", "h", 80));
    let ttl = Duration::from_secs(30);
    eureka.register("Orders", &instance, ttl).await.unwrap();
    eureka.deregister("orders", &instance).await.unwrap();
    let lines = ["POST /apps/ORDERS", "DELETE /apps/ORDERS/Aa"];
    assert_eq!(server.lines(), lines);
}

#[tokio::test]
async fn a_change_of_status_is_another_registration() {
    let server = Server::start(|_, _| Reply::json("")).await;
    let eureka = eureka(&server);
    let instance = Instance::new("a/1", "10.0.0.1", 80);
    let renew = |status| eureka.renew("orders", &instance, status);
    eureka
        .register("orders", &instance, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(renew(Status::Up).await.unwrap(), Renewal::Renewed);
    assert_eq!(renew(Status::OutOfService).await.unwrap(), Renewal::Renewed);
    assert_eq!(renew(Status::OutOfService).await.unwrap(), Renewal::Renewed);
    // Each heartbeat says which registration it is of.
    let written = |n: usize| {
        let body: Value = serde_json::from_str(&server.asked()[n].body).unwrap();
        body["instance"]["lastDirtyTimestamp"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let heartbeat = |status, n| {
        let at = written(n);
        format!("PUT /apps/ORDERS/a%2F1?status={status}&lastDirtyTimestamp={at}")
    };
    assert_eq!(
        server.lines(),
        [
            "POST /apps/ORDERS",
            &heartbeat("UP", 0),
            &heartbeat("DOWN", 0),
            "POST /apps/ORDERS",
            &heartbeat("DOWN", 3),
        ]
    );
    let body: Value = serde_json::from_str(&server.asked()[3].body).unwrap();
    assert_eq!(body["instance"]["status"], "DOWN");
    assert_eq!(body["instance"]["leaseInfo"]["durationInSecs"], 30);
}

#[tokio::test]
async fn a_forgotten_instance_means_register_again() {
    let server = Server::start(|_, _| Reply::status("404 Not Found", "")).await;
    let instance = Instance::new("a", "10.0.0.1", 80);
    let eureka = eureka(&server);
    assert_eq!(
        eureka.renew("orders", &instance, Status::Up).await.unwrap(),
        Renewal::Unknown
    );
    eureka.deregister("orders", &instance).await.unwrap();
    let error = eureka
        .register("orders", &instance, Duration::from_secs(30))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
}

#[tokio::test]
async fn both_overridden_keys_are_understood_and_the_operators_word_counts() {
    for (key, value, status) in [
        ("overriddenStatus", "OUT_OF_SERVICE", Status::OutOfService),
        ("overriddenstatus", "OUT_OF_SERVICE", Status::OutOfService),
        ("overriddenStatus", "UNKNOWN", Status::Up),
        ("overriddenstatus", "UP", Status::Up),
    ] {
        let mut found = instance("a", "UP");
        found[key] = value.into();
        assert_eq!(described(found).await[0].status, status, "{key} {value}");
    }
    let mut both = instance("a", "UP");
    (both["overriddenStatus"], both["overriddenstatus"]) = (json!("UP"), json!("UP"));
    assert_eq!(described(both).await[0].status, Status::Up);
}

#[tokio::test]
async fn a_service_can_be_looked_up_by_its_virtual_address() {
    let named = |id: &str, vip: &str, secure: bool| {
        let mut named = instance(id, "UP");
        named["vipAddress"] = vip.into();
        named["secureVipAddress"] = format!("{vip}.tls").into();
        named["securePort"]["@enabled"] = secure.into();
        named
    };
    let server = Server::start(move |_, _| {
        let list = json!([
            {"name": "ORDERS", "instance": [named("b", "shop,orders", true), named("c", "orders", true)]},
            {"name": "STOCK", "instance": [named("a", "Shop", false)]},
        ]);
        apps("UP_3_", list)
    })
    .await;
    let vip = eureka(&server).by_vip();
    assert_eq!(
        ids(&Watching::start(&vip, "shop").instances().await),
        ["a", "b"]
    );
    assert_eq!(
        ids(&Watching::start(&vip, "ORDERS").instances().await),
        ["b", "c"]
    );
    assert_eq!(Watching::start(&vip, "stock").instances().await, []);
    let secure = vip.by_secure_vip();
    let found = Watching::start(&secure, "orders.TLS").instances().await;
    assert_eq!(ids(&found), ["b", "c"]);
    assert_eq!((found[0].port, found[0].secure), (443, true));
    assert_eq!(Watching::start(&secure, "shop.tls").instances().await, []);
}

#[tokio::test]
async fn regions_are_asked_for_in_full_and_for_changes() {
    let server = Server::start(|_, _| apps("", json!([]))).await;
    let eureka = eureka(&server).regions(["eu-1", "us 2"]);
    let mut watching = Watching::start(&eureka, "orders");
    watching.instances().await;
    watching.next().await;
    let lines = server.lines();
    assert_eq!(lines[0], "GET /apps?regions=eu-1%2Cus+2");
    assert_eq!(lines[1], "GET /apps/delta?regions=eu-1%2Cus+2");
}

#[tokio::test]
async fn requests_say_who_asks() {
    let (server, mut watching) = watching(vec![apps("", json!([]))]).await;
    watching.instances().await;
    let head = server.asked()[0].head.clone();
    assert!(head.contains("discoveryidentity-name: buttress"), "{head}");
}

#[tokio::test]
async fn a_server_that_answers_503_leads_to_the_next_which_is_read_in_full() {
    let first = Server::script(vec![
        orders("UP_1_", vec![instance("a", "UP")]),
        Reply::status("503 Service Unavailable", ""),
    ])
    .await;
    let second = Server::start(|n, _| match n {
        0 => orders("UP_2_", vec![instance("a", "UP"), instance("b", "UP")]),
        _ => orders("UP_2_", json!([])),
    })
    .await;
    let eureka = Eureka::new(&first.url())
        .unwrap()
        .other_zone(&second.url())
        .unwrap()
        .poll(Duration::from_millis(100));
    assert_eq!(
        eureka.name(),
        format!("eureka at {}, {}", first.url(), second.url())
    );
    let mut watching = Watching::start(&eureka, "orders");
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    assert_eq!(watching.next().await, Update::Confirmed);
    assert_eq!(first.lines(), [FULL, DELTA]);
    assert_eq!(second.lines(), [FULL, DELTA]);
}

#[tokio::test]
async fn a_server_that_is_warming_up_with_403_leads_to_the_next() {
    let cold = Server::start(|_, _| Reply::status("403 Forbidden", "")).await;
    let warm = Server::start(|_, _| orders("UP_1_", vec![instance("a", "UP")])).await;
    let eureka = Eureka::new(&cold.url()).unwrap();
    let eureka = eureka.other_zone(&warm.url()).unwrap();
    let found = Watching::start(&eureka, "orders").instances().await;
    assert_eq!(ids(&found), ["a"]);
}

#[tokio::test]
async fn a_server_that_has_forgotten_much_is_not_believed_while_a_peer_knows_more() {
    let ten = || (0..10).map(|n| instance(&n.to_string(), "UP"));
    for left in [0, 8] {
        let all = move || orders("UP_10_", ten().collect::<Vec<_>>());
        let restarted = Server::start(move |n, _| match n {
            0 => all(),
            1 => orders("UP_77_", json!([])),
            _ => orders(&format!("UP_{left}_"), ten().take(left).collect::<Vec<_>>()),
        })
        .await;
        let peer = Server::start(move |n, _| match n {
            0 => all(),
            _ => orders("UP_10_", json!([])),
        })
        .await;
        let eureka = Eureka::new(&restarted.url())
            .unwrap()
            .other_zone(&peer.url())
            .unwrap()
            .poll(Duration::from_millis(100));
        let mut watching = Watching::start(&eureka, "orders");
        assert_eq!(watching.instances().await.len(), 10);
        for _ in 0..2 {
            assert_eq!(watching.next().await, Update::Confirmed);
        }
        assert_eq!(restarted.lines(), [FULL, DELTA, FULL]);
    }
}

#[tokio::test]
async fn what_nobody_knows_any_more_is_believed() {
    let forgetful = || {
        Server::start(|n, _| match n {
            0 => orders("UP_1_", vec![instance("a", "UP")]),
            _ => apps("", json!([])),
        })
    };
    let same = Server::start(|_, _| apps("", json!([]))).await;
    // The other says the same, or nothing at all.
    for other in [same.url(), "http://127.0.0.1:1".to_owned()] {
        let eureka = Eureka::new(&forgetful().await.url())
            .unwrap()
            .other_zone(&other)
            .unwrap()
            .poll(Duration::from_millis(100));
        let mut watching = Watching::start(&eureka, "orders");
        assert_eq!(ids(&watching.instances().await), ["a"]);
        assert_eq!(watching.instances().await, []);
    }
}

#[tokio::test]
async fn a_200_with_zero_applications_empties_no_client() {
    let server = Server::start(|n, _| match n {
        0 => orders("UP_1_", vec![instance("a", "UP")]),
        _ => apps("", json!([])),
    })
    .await;
    let watch = Resolver::new(eureka(&server)).watch("orders");
    watch.resolved().await.unwrap();
    while server.lines().len() < 4 {
        clock::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(watch.snapshot().instances().len(), 1);
}

#[tokio::test]
async fn a_heartbeat_goes_on_through_the_next_server() {
    let first = Server::script(vec![
        Reply::status("204 No Content", ""),
        Reply::Raw(Vec::new()),
    ])
    .await;
    let second = Server::start(|n, _| match n {
        0 => Reply::status("404 Not Found", ""),
        _ => Reply::json(""),
    })
    .await;
    let eureka = Eureka::new(&first.url()).unwrap();
    let eureka = eureka.other_zone(&second.url()).unwrap();
    let instance = Instance::new("a", "10.0.0.1", 80);
    let ttl = Duration::from_secs(30);
    eureka.register("orders", &instance, ttl).await.unwrap();
    let renew = || eureka.renew("orders", &instance, Status::Up);
    assert_eq!(renew().await.unwrap(), Renewal::Unknown, "not heard of yet");
    eureka.register("orders", &instance, ttl).await.unwrap();
    assert_eq!(renew().await.unwrap(), Renewal::Renewed);
    assert_eq!(first.lines().len(), 2);
}

#[test]
#[should_panic(expected = "more than a Eureka server bears")]
fn a_poll_without_a_pause_is_refused() {
    let _ = Eureka::new("http://localhost")
        .unwrap()
        .poll(Duration::ZERO);
}
