//! What etcd's gateway, or something in its place, may say on the wire, and what is made of it.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;
mod wire;

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Renewal, Status, Update};
use buttress::registries::etcd::Etcd;
use serde_json::{Value, json};
use watching::TTL;
use watching::Watching;
use wire::{Reply, Server};

const RANGE: &str = "POST /v3/kv/range";
const WATCH: &str = "POST /v3/watch";
const CREATED: &str = r#"{"result":{"header":{"revision":"7"},"created":true}}"#;

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn pair(id: &str, revision: u32) -> Value {
    let value = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;
    json!({
        "key": base64(&format!("orders/{id}")),
        "value": base64(value),
        "mod_revision": revision.to_string(),
        "lease": "9",
    })
}

fn list(revision: u32, pairs: &[Value]) -> String {
    let count = pairs.len().to_string();
    json!({"header": {"revision": revision.to_string()}, "kvs": pairs, "count": count}).to_string()
}

fn events(revision: u32, fragment: bool, events: &[Value]) -> String {
    json!({"result": {"header": {"revision": revision.to_string()}, "fragment": fragment, "events": events}})
        .to_string()
}

/// Lists `a` at revision 7 and begins watches, of which the nth says the nth of `watches`.
async fn server(watches: Vec<Reply>) -> Server {
    let watches = Mutex::new(watches.into_iter());
    Server::start(move |_, request| match &*request.line {
        RANGE => Reply::json(list(7, &[pair("a", 7)])),
        WATCH => watches.lock().unwrap().next().unwrap_or(Reply::Hang),
        other => panic!("asked {other}"),
    })
    .await
}

fn watch(server: &Server) -> Watching {
    Watching::start(&Etcd::new(&server.url()).unwrap(), "orders")
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

/// The bodies of the requests of that line.
fn bodies(server: &Server, line: &str) -> Vec<Value> {
    let asked = server.asked().into_iter();
    let bodies = asked.filter(|request| request.line == line);
    let bodies = bodies.map(|request| serde_json::from_str(&request.body).unwrap());
    bodies.collect()
}

#[tokio::test]
async fn a_folder_is_read_at_a_revision_and_watched_from_the_next() {
    let server = server(vec![Reply::open(&[CREATED])]).await;
    watch(&server).instances().await;
    while server.asked().len() < 2 {
        clock::sleep(Duration::from_millis(5)).await;
    }
    // Not `orders-too/`, which begins with `orders` as well.
    let folder = json!({"key": base64("orders/"), "range_end": base64("orders0")});
    assert_eq!(bodies(&server, RANGE), std::slice::from_ref(&folder));
    let mut create = folder;
    create["start_revision"] = "8".into();
    create["progress_notify"] = true.into();
    create["fragment"] = true.into();
    assert_eq!(bodies(&server, WATCH), [json!({"create_request": create})]);
    assert!(
        server.asked()[1]
            .head
            .contains("grpc-metadata-hasleader: true\r\n")
    );
}

#[tokio::test]
async fn events_are_told_once_they_are_all_there() {
    let put = |id, revision| json!({"kv": pair(id, revision)});
    let gone = |id: &str| {
        let kv = json!({"key": base64(&format!("orders/{id}")), "mod_revision": "9"});
        json!({"type": "DELETE", "kv": kv})
    };
    let lines = [
        events(8, true, &[put("b", 8)]),
        events(8, false, &[put("c", 8)]),
        "\r".to_owned(),
        events(9, false, &[gone("a"), gone("unknown")]),
        events(10, false, &[]),
    ];
    let mut reply = CREATED.to_owned();
    for line in &lines {
        reply += &format!("\n{line}");
    }
    let server = server(vec![Reply::open(&[&reply])]).await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["b", "c"]);
}

#[tokio::test]
async fn whatever_is_no_list_ends_the_watch_with_its_reason() {
    use ErrorKind::{Denied, Failed, Malformed, Unreachable};
    let said = |message: &str, code: u32| {
        json!({"error": message, "message": message, "code": code}).to_string()
    };
    let bad = |pair: Value| Reply::json(list(7, &[pair]));
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (
            Reply::status("503 Service Unavailable", said("etcdserver: no leader", 14)),
            Failed,
            "503 Service Unavailable: etcdserver: no leader",
        ),
        (
            Reply::status("403 Forbidden", said("etcdserver: permission denied", 7)),
            Denied,
            "403 Forbidden: etcdserver: permission denied",
        ),
        (
            Reply::status("403 Forbidden", "not here"),
            Denied,
            "403 Forbidden: not here",
        ),
        (
            Reply::status(
                "401 Unauthorized",
                said("etcdserver: invalid auth token", 16),
            ),
            Denied,
            "invalid auth token",
        ),
        (
            Reply::status("404 Not Found", "404 page not found"),
            Failed,
            "may be switched off",
        ),
        (Reply::status("302 Found", ""), Failed, "302"),
        (
            Reply::status("500 Internal Server Error", "<html>"),
            Failed,
            "<html>",
        ),
        (Reply::json("<html>"), Malformed, "cannot be understood"),
        (Reply::json("{}"), Malformed, "cannot be understood"),
        (
            Reply::json(r#"{"header":{"revision":"x"}}"#),
            Malformed,
            "cannot be understood",
        ),
        (
            Reply::json(r#"{"header":{"revision":"99999999999999999999"}}"#),
            Malformed,
            "cannot",
        ),
        (bad(json!({"key": "%"})), Malformed, "cannot be understood"),
        (
            bad(json!({"key": "YQ==", "lease": []})),
            Malformed,
            "cannot be understood",
        ),
        (Reply::json(list(7, &[])).cut(), Unreachable, "broke off"),
        (
            Reply::Raw(b"garbage\r\n\r\n".to_vec()),
            Unreachable,
            "broke off",
        ),
        (Reply::Raw(Vec::new()), Unreachable, "broke off"),
    ];
    for (reply, kind, text) in table {
        let server = Server::script(vec![reply]).await;
        let error = watch(&server).error().await;
        assert_eq!(error.kind(), kind, "{}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
    }
}

#[tokio::test]
async fn whatever_is_no_event_ends_the_watch_with_its_reason() {
    use ErrorKind::{Denied, Failed, Malformed, Unreachable};
    let with = |line: &str| Reply::open(&[CREATED, line]);
    let cut = format!("HTTP/1.1 200 OK\r\n\r\n{CREATED}\n{{\"result\":");
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (with("{"), Malformed, "cannot be understood"),
        (with("{}"), Malformed, "neither result nor error"),
        (with("\u{fffd}"), Malformed, "cannot be understood"),
        (
            with(r#"{"result":{"header":{},"events":[{}]}}"#),
            Malformed,
            "cannot be understood",
        ),
        (
            with(r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#),
            Failed,
            "etcdserver: no leader",
        ),
        (
            with(r#"{"result":{"header":{},"canceled":true,"cancel_reason":"why not"}}"#),
            Failed,
            "why not",
        ),
        (
            Reply::open(&[
                r#"{"result":{"header":{},"created":true,"canceled":true,"cancel_reason":"permission denied"}}"#,
            ]),
            Denied,
            "permission denied",
        ),
        (
            Reply::open(&[r#"{"result":{"header":{}}}"#]),
            Malformed,
            "begins no watch",
        ),
        (Reply::json(""), Unreachable, "broke off"),
        (Reply::Raw(cut.into_bytes()), Unreachable, "broke off"),
        (Reply::status("503 Service Unavailable", ""), Failed, "503"),
    ];
    for (reply, kind, text) in table {
        let server = server(vec![reply]).await;
        let error = watch(&server).error().await;
        assert_eq!(error.kind(), kind, "{}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
    }
}

#[tokio::test]
async fn a_huge_answer_is_refused_before_it_is_all_read() {
    let mut raw = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    raw.resize(48 * 1024 * 1024, b' ');
    let one = Server::script(vec![Reply::Raw(raw.clone())]).await;
    let line = server(vec![Reply::Open(raw)]).await;
    for server in [one, line] {
        let error = watch(&server).error().await;
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.message().contains("longer than"), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_silence_times_out() {
    let nobody = Etcd::new("http://127.0.0.1:1").unwrap();
    let error = Watching::start(&nobody, "orders").error().await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    let headers_only = Reply::Open(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    for (server, requests) in [
        (Server::script(vec![]).await, 1),
        (server(vec![]).await, 2),
        (server(vec![headers_only]).await, 2),
    ] {
        let watching = watch(&server);
        while server.asked().len() < requests {
            clock::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::pause();
        assert_eq!(watching.error().await.kind(), ErrorKind::TimedOut);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_found_out_and_begun_again() {
    let watches = Mutex::new(0);
    let fresh = pair("b", 9);
    let told = events(9, false, &[json!({"kv": fresh.clone()})]);
    let server = Server::start(move |n, request| match (&*request.line, n) {
        (RANGE, 0) => Reply::json(list(7, &[pair("a", 7)])),
        // What only a look tells.
        (RANGE, _) => Reply::json(
            json!({"header": {"revision": "9"}, "kvs": [fresh], "count": "2"}).to_string(),
        ),
        _ => {
            let mut watches = watches.lock().unwrap();
            *watches += 1;
            match *watches {
                1 => Reply::open(&[CREATED]),
                _ => Reply::open(&[CREATED, &told]),
            }
        }
    })
    .await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    let looks = bodies(&server, RANGE);
    assert_eq!(looks[1]["min_mod_revision"], "8");
    assert_eq!(looks[1]["keys_only"], true);
    let watches = bodies(&server, WATCH);
    assert_eq!(watches[1]["create_request"]["start_revision"], "8");
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn a_store_that_only_looks_the_same_is_not_believed() {
    let other = |count: &str| {
        let mut kv = pair("a", 7);
        kv["lease"] = "10".into();
        json!({"header": {"revision": "9"}, "kvs": [kv], "count": count}).to_string()
    };
    let server = Server::start(move |n, request| match (&*request.line, n) {
        (RANGE, 0) => Reply::json(list(7, &[pair("a", 7)])),
        // The watch is found to be silent, and begun again.
        (RANGE, _) if request.body.contains(r#""min_mod_revision":"8""#) => Reply::json(other("2")),
        // All that there is, as it was but for the lease; of what is newer, nothing.
        (RANGE, _) if request.body.contains(r#""min_mod_revision":"1""#) => Reply::json(other("1")),
        (RANGE, _) => Reply::json(r#"{"header":{"revision":"9"},"count":"1"}"#),
        _ => Reply::open(&[CREATED]),
    })
    .await;
    let mut watching = watch(&server);
    watching.instances().await;
    assert_eq!(watching.error().await.kind(), ErrorKind::TimedOut);
    assert_eq!(bodies(&server, WATCH).len(), 2);
}

#[tokio::test]
async fn a_store_that_forgets_all_the_time_does_not_make_a_flood() {
    let forgotten = r#"{"result":{"header":{},"canceled":true,"compact_revision":"99"}}"#;
    let server = server(vec![Reply::open(&[CREATED, forgotten])]).await;
    let error = watch(&server).error().await;
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.message().contains("forgets"), "{error}");
}

#[tokio::test]
async fn a_store_that_goes_backwards_is_another_one_and_read_again() {
    let server = Server::start(|n, request| match (&*request.line, n) {
        (RANGE, 0) => Reply::json(list(7, &[pair("a", 7)])),
        (RANGE, _) => Reply::json(list(2, &[pair("b", 2)])),
        _ => Reply::open(&[CREATED]),
    })
    .await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["b"]);
    while bodies(&server, WATCH).len() < 2 {
        clock::sleep(Duration::from_millis(5)).await;
    }
    let again = &bodies(&server, WATCH)[1];
    assert_eq!(again["create_request"]["start_revision"], "3");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_read_is_told_of_and_the_watch_goes_on() {
    let server = Server::start(|n, request| match (&*request.line, n) {
        (RANGE, 0) => Reply::json(list(7, &[pair("a", 7)])),
        (RANGE, _) => Reply::status("503 Service Unavailable", "no quorum"),
        _ => Reply::open(&[CREATED]),
    })
    .await;
    let mut watching = watch(&server);
    watching.instances().await;
    let Update::Failed(error) = watching.next().await else {
        panic!("believed");
    };
    assert!(error.message().contains("no quorum"), "{error}");
    assert!(!watching.ended.is_finished());
}

#[tokio::test]
async fn a_silent_member_is_left_for_one_that_answers_and_asked_last_for_a_while() {
    let silent = Server::script(vec![]).await;
    let sound = Server::start(|_, _| Reply::json(r#"{"ID":"5","TTL":"30"}"#)).await;
    let urls = format!("{},{}", silent.url(), sound.url());
    // Where to begin is left to chance.
    while silent.asked().is_empty() {
        let etcd = Etcd::new(&urls).unwrap();
        let a = Instance::new("a", "h", 80);
        let began = clock::now();
        etcd.register("orders", &a, TTL).await.unwrap();
        let took = clock::now() - began;
        assert!(took < Duration::from_secs(6), "{took:?}");
        assert!(silent.asked().len() <= 1, "asked again");
    }
}

#[tokio::test]
async fn registration_grants_a_lease_and_puts_the_instance_under_it() {
    let server = Server::start(|_, _| Reply::json(r#"{"ID":"5","TTL":"90"}"#)).await;
    let etcd = Etcd::new(&server.url()).unwrap().prefix("/services/");
    let instance = Instance::new("a", "10.0.0.1", 8443)
        .zone("z1")
        .weight(3)
        .status(Status::Starting);
    let ttl = Duration::from_millis(89_500);
    etcd.register("Orders", &instance, ttl).await.unwrap();
    assert_eq!(server.lines(), ["POST /v3/lease/grant", "POST /v3/kv/put"]);
    assert_eq!(
        bodies(&server, "POST /v3/lease/grant"),
        [json!({"TTL": "90"})]
    );
    let value = r#"{"Op":0,"Addr":"10.0.0.1:8443","Metadata":{"status":"starting","weight":"3","zone":"z1"}}"#;
    assert_eq!(
        bodies(&server, "POST /v3/kv/put"),
        [json!({"key": base64("/services/orders/a"), "value": base64(value), "lease": "5"})]
    );
    etcd.register("orders", &instance, Duration::MAX)
        .await
        .unwrap();
    etcd.register("orders", &instance, Duration::ZERO)
        .await
        .unwrap();
    let asked = bodies(&server, "POST /v3/lease/grant");
    assert_eq!(
        asked[1..],
        [json!({"TTL": "9000000000"}), json!({"TTL": "1"})]
    );
}

#[tokio::test]
async fn a_lease_without_time_left_means_register_again() {
    let instance = Instance::new("a", "10.0.0.1", 80);
    let renewal = async |kept: &'static str, decided: &'static str| {
        let server = Server::start(move |_, request| {
            Reply::json(match &*request.line {
                "POST /v3/lease/keepalive" => kept,
                "POST /v3/kv/txn" => decided,
                _ => r#"{"ID":"5","TTL":"90"}"#,
            })
        })
        .await;
        let etcd = Etcd::new(&server.url()).unwrap();
        etcd.register("orders", &instance, TTL).await.unwrap();
        etcd.renew("orders", &instance, Status::Up).await
    };
    let kept = r#"{"result":{"ID":"5","TTL":"90"}}"#;
    let there = r#"{"responses":[{"response_range":{"header":{},"count":"1"}}]}"#;
    for (kept, decided, expected) in [
        (kept, r#"{"succeeded":true}"#, Renewal::Renewed),
        (kept, there, Renewal::Renewed),
        (
            kept,
            r#"{"responses":[{"response_range":{"header":{}}}]}"#,
            Renewal::Unknown,
        ),
        (r#"{"result":{"ID":"5"}}"#, "", Renewal::Unknown),
        (r#"{"result":{"ID":"5","TTL":"0"}}"#, "", Renewal::Unknown),
        (r#"{"result":{"ID":"5","TTL":"-1"}}"#, "", Renewal::Unknown),
    ] {
        assert_eq!(
            renewal(kept, decided).await.unwrap(),
            expected,
            "{kept} {decided}"
        );
    }
    for kept in ["{}", "", r#"{"error":{"code":13,"message":"oops"}}"#] {
        assert!(renewal(kept, "").await.is_err(), "{kept}");
    }
    let etcd = Etcd::new("http://127.0.0.1:1").unwrap();
    let renewal = etcd.renew("orders", &instance, Status::Up).await;
    assert_eq!(renewal.unwrap(), Renewal::Unknown, "another process's");
}

#[tokio::test]
async fn the_password_is_asked_for_a_token_once() {
    let server = Server::start(|_, request| match &*request.line {
        "POST /v3/auth/authenticate" => Reply::json(r#"{"token":"T1"}"#),
        RANGE => Reply::json(list(7, &[])),
        _ => Reply::open(&[CREATED]),
    })
    .await;
    let etcd = Etcd::new(&server.url()).unwrap().user("u", " p\n");
    let mut all = [(); 5].map(|()| Watching::start(&etcd, "orders"));
    for watching in &mut all {
        watching.instances().await;
    }
    let logins = bodies(&server, "POST /v3/auth/authenticate");
    assert_eq!(logins, [json!({"name": "u", "password": "p"})]);
    for request in server.asked().iter().skip(1) {
        assert!(
            request.head.contains("authorization: t1\r\n"),
            "{}",
            request.head
        );
    }
}

#[tokio::test]
async fn what_is_no_url_is_said_at_once() {
    for urls in [
        "",
        "etcd:2379",
        "http://a:2379,",
        "http://u:p@a:2379",
        "http://a:2379 http://b:2379",
    ] {
        let error = Etcd::new(urls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{urls}");
        assert!(!error.to_string().contains("u:p"), "{error}");
    }
    let etcd = Etcd::new("http://a:2379, https://b:2379/").unwrap();
    assert_eq!(etcd.name(), "etcd at http://a:2379, https://b:2379");
}
