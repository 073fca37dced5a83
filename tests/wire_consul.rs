//! What Consul may say on the wire, and what is made of it.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;
mod wire;

use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Renewal, Status, Update};
use buttress::registries::consul::Consul;
use serde_json::{Value, json};
use watching::Watching;
use wire::{Reply, Server};

fn list(ids: &[&str]) -> String {
    let entry = |id: &&str| {
        json!({
            "Node": {"Node": "n1", "Address": "10.0.0.1"},
            "Service": {"ID": id, "Service": "orders", "Address": "", "Port": 80, "Meta": null, "Tags": null},
            "Checks": [{"CheckID": "c", "Status": "passing"}],
        })
    };
    Value::from_iter(ids.iter().map(entry)).to_string()
}

fn answer(index: &str, ids: &[&str]) -> Reply {
    Reply::new(
        "200 OK",
        &[("x-consul-index", index), ("x-consul-knownleader", "true")],
        list(ids),
    )
}

async fn watching(replies: Vec<Reply>) -> (Server, Watching) {
    let server = Server::script(replies).await;
    let watching = Watching::start(&Consul::new(&server.url()).unwrap(), "orders");
    (server, watching)
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

async fn asked(server: &Server, requests: usize) {
    while server.asked().len() < requests {
        clock::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_first_query_does_not_wait_and_the_next_waits_for_a_change() {
    let (server, mut watching) =
        watching(vec![answer("7", &["a"]), answer("9", &["a", "b"])]).await;
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    asked(&server, 3).await;
    assert_eq!(
        server.lines(),
        [
            "GET /v1/health/service/orders",
            "GET /v1/health/service/orders?index=7&wait=300s",
            "GET /v1/health/service/orders?index=9&wait=300s",
        ]
    );
}

#[tokio::test]
async fn an_index_that_goes_backwards_begins_anew_and_one_of_zero_still_blocks() {
    let (server, mut watching) = watching(vec![
        answer("7", &["a"]),
        answer("3", &["a"]),
        answer("0", &["b"]),
    ])
    .await;
    watching.instances().await;
    assert_eq!(watching.next().await, Update::Confirmed);
    assert_eq!(ids(&watching.instances().await), ["b"]);
    asked(&server, 4).await;
    let lines = server.lines();
    assert_eq!(lines[2], "GET /v1/health/service/orders");
    assert_eq!(lines[3], "GET /v1/health/service/orders?index=1&wait=300s");
}

#[tokio::test]
async fn churn_elsewhere_confirms_the_list_and_does_not_become_a_flood() {
    let server = Server::start(|n, _| answer(&(n + 1).to_string(), &["a"])).await;
    let mut watching = Watching::start(&Consul::new(&server.url()).unwrap(), "orders");
    watching.instances().await;
    assert_eq!(watching.next().await, Update::Confirmed);
    clock::sleep(Duration::from_secs(2)).await;
    let asked = server.asked().len();
    assert!((3..=8).contains(&asked), "{asked} queries in 2 s");
}

#[tokio::test]
async fn the_order_of_the_answer_does_not_matter() {
    let (_server, mut watching) =
        watching(vec![answer("7", &["a", "b"]), answer("8", &["b", "a"])]).await;
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    assert_eq!(watching.next().await, Update::Confirmed);
}

#[tokio::test]
async fn an_unknown_service_has_no_instances() {
    let (_server, mut watching) = watching(vec![answer("7", &[])]).await;
    assert_eq!(watching.instances().await, []);
}

#[tokio::test]
async fn a_blocking_query_outlasts_the_servers_own_jitter() {
    let (server, mut watching) = watching(vec![answer("7", &["a"])]).await;
    watching.instances().await;
    asked(&server, 2).await;
    tokio::time::pause();
    let began = clock::now();
    let error = watching.error().await;
    let waited = (clock::now() - began).as_secs();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!((320..335).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn without_a_leader_a_list_may_grow_but_neither_shrinks_nor_is_confirmed() {
    let leaderless = |index, ids| {
        let headers = [("x-consul-index", index), ("x-consul-knownleader", "false")];
        Reply::new("200 OK", &headers, list(ids))
    };
    let (_server, mut watching1) = watching(vec![
        leaderless("7", &["a"]),
        leaderless("8", &["a", "b"]),
        leaderless("8", &["a", "b"]),
        leaderless("9", &["a"]),
        leaderless("9", &["b", "c"]),
        answer("9", &["a"]),
    ])
    .await;
    for grown in [&["a"][..], &["a", "b"]] {
        assert_eq!(ids(&watching1.instances().await), grown);
        assert_eq!(watching1.failed().await.kind(), ErrorKind::Failed);
    }
    // The watch goes on, or the next would believe what this one does not.
    for _ in 0..3 {
        let error = watching1.failed().await;
        assert!(error.message().contains("no leader"), "{error}");
    }
    assert_eq!(ids(&watching1.instances().await), ["a"]);

    let (_server, watching2) = watching(vec![leaderless("7", &[])]).await;
    assert_eq!(watching2.error().await.kind(), ErrorKind::Failed);
}

#[tokio::test]
async fn the_streaming_backend_never_knows_a_leader_and_is_believed() {
    let headers = [
        ("x-consul-index", "8"),
        ("x-consul-knownleader", "false"),
        ("x-consul-query-backend", "streaming"),
    ];
    let empty = Reply::new("200 OK", &headers, "[]");
    let (_server, mut watching) = watching(vec![answer("7", &["a"]), empty]).await;
    watching.instances().await;
    assert_eq!(watching.instances().await, []);
}

#[tokio::test]
async fn an_empty_list_for_want_of_rights_is_a_denial() {
    let filtered = [
        ("x-consul-index", "7"),
        ("x-consul-results-filtered-by-acls", "true"),
    ];
    let (_server, watching1) = watching(vec![Reply::new("200 OK", &filtered, "[]")]).await;
    let error = watching1.error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("may not read"), "{error}");

    let closed = [
        ("x-consul-index", "7"),
        ("x-consul-default-acl-policy", "deny"),
    ];
    let (_server, watching2) = watching(vec![Reply::new("200 OK", &closed, "[]")]).await;
    let error = watching2.error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("no token"), "{error}");

    let server = Server::script(vec![Reply::new("200 OK", &closed, "[]")]).await;
    let consul = Consul::new(&server.url()).unwrap().token("t");
    assert_eq!(Watching::start(&consul, "orders").instances().await, []);
}

#[tokio::test]
async fn whatever_is_no_answer_ends_the_watch_with_its_reason() {
    let index = [("x-consul-index", "7")];
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (
            Reply::status("500 Internal Server Error", "No cluster leader"),
            ErrorKind::Failed,
            "500 Internal Server Error: No cluster leader",
        ),
        (
            Reply::status("429 Too Many Requests", ""),
            ErrorKind::Failed,
            "429",
        ),
        (Reply::status("302 Found", ""), ErrorKind::Failed, "302"),
        (
            Reply::status("403 Forbidden", "Permission denied"),
            ErrorKind::Denied,
            "403 Forbidden: Permission denied",
        ),
        (
            Reply::new("200 OK", &index, "<html>"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::new("200 OK", &index, "{}"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::new("200 OK", &index, "[{\"Node\": {}}]"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::new("200 OK", &index, "[null"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            Reply::new("200 OK", &index, "\u{fffd}"),
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (Reply::json("[]"), ErrorKind::Malformed, "X-Consul-Index"),
        (
            Reply::new("200 OK", &[("x-consul-index", "-1")], "[]"),
            ErrorKind::Malformed,
            "X-Consul-Index",
        ),
        (
            answer("7", &["a"]).cut(),
            ErrorKind::Unreachable,
            "broke off",
        ),
        (
            Reply::Raw(b"garbage\r\n\r\n".to_vec()),
            ErrorKind::Unreachable,
            "broke off",
        ),
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
async fn a_huge_answer_is_refused_before_it_is_all_read() {
    let mut raw = b"HTTP/1.1 200 OK\r\nx-consul-index: 7\r\n\r\n".to_vec();
    raw.resize(48 * 1024 * 1024, b' ');
    let (_server, watching) = watching(vec![Reply::Raw(raw)]).await;
    let error = watching.error().await;
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.message().contains("longer than"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_a_silent_server_times_out() {
    let error = Watching::start(&Consul::new("http://127.0.0.1:1").unwrap(), "orders")
        .error()
        .await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);

    let (server, watching) = watching(vec![]).await;
    asked(&server, 1).await;
    tokio::time::pause();
    assert_eq!(watching.error().await.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn what_is_no_url_is_said_at_once() {
    for url in [
        "",
        "consul:8500",
        "unix:///run/consul.sock",
        "http://",
        "127.0.0.1:8500",
    ] {
        let error = Consul::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
    }
}

#[tokio::test]
async fn the_token_goes_into_its_header_and_the_urls_user_into_another() {
    let server = Server::script(vec![answer("7", &["a"])]).await;
    let consul = Consul::new(&format!("http://u%40x:p@{}/consul/", server.address)).unwrap();
    assert_eq!(
        consul.name(),
        format!("consul at http://{}/consul", server.address)
    );
    Watching::start(&consul.token("T1\n"), "a/b c")
        .instances()
        .await;
    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /consul/v1/health/service/a%2Fb%20c");
    assert!(
        asked[0].head.contains("x-consul-token: t1\r\n"),
        "{}",
        asked[0].head
    );
    // `u@x:p`; the head is kept in lower case.
    assert!(
        asked[0].head.contains("authorization: basic dub4ona="),
        "{}",
        asked[0].head
    );
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_denied() {
    let server = Server::script(vec![]).await;
    let consul = Consul::new(&server.url()).unwrap().token("a\nb");
    let error = Watching::start(&consul, "orders").error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn registration_describes_the_instance_and_its_lease() {
    let server = Server::script(vec![Reply::json("")]).await;
    let consul = Consul::new(&server.url()).unwrap();
    let instance = Instance::new("a", "10.0.0.1", 8443)
        .secure(true)
        .zone("z1")
        .weight(3)
        .metadata("k", "v")
        .status(Status::Starting);
    consul
        .register("orders", &instance, Duration::from_secs(90))
        .await
        .unwrap();
    let asked = server.asked();
    assert_eq!(
        asked[0].line,
        "PUT /v1/agent/service/register?replace-existing-checks=true"
    );
    let body: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(
        body,
        json!({
            "ID": "a",
            "Name": "orders",
            "Address": "10.0.0.1",
            "Port": 8443,
            "Meta": {"k": "v", "secure": "true", "zone": "z1"},
            "Weights": {"Passing": 3, "Warning": 3},
            "Checks": [
                {"CheckID": "lease:a", "Name": "Heartbeat", "TTL": "90000ms", "Status": "passing",
                    "DeregisterCriticalServiceAfter": "90000ms"},
                {"CheckID": "state:a", "Name": "Status", "TTL": "87600h", "Status": "critical"},
            ],
        })
    );
}

#[tokio::test]
async fn a_heartbeat_renews_the_lease_and_tells_the_status() {
    let server = Server::script(vec![Reply::json(""), Reply::json("")]).await;
    let consul = Consul::new(&server.url()).unwrap();
    let instance = Instance::new("a", "10.0.0.1", 80);
    let renewal = consul
        .renew("orders", &instance, Status::OutOfService)
        .await;
    assert_eq!(renewal.unwrap(), Renewal::Renewed);
    let asked = server.asked();
    assert_eq!(asked[0].line, "PUT /v1/agent/check/update/lease:a");
    assert_eq!(asked[0].body, r#"{"Status":"passing","Output":"up"}"#);
    assert_eq!(asked[1].line, "PUT /v1/agent/check/update/state:a");
    assert_eq!(
        asked[1].body,
        r#"{"Status":"critical","Output":"out of service"}"#
    );
}

#[tokio::test]
async fn a_forgotten_check_means_register_again() {
    let unknown = || Reply::status("404 Not Found", "Unknown check ID");
    let consul = |replies| async { Consul::new(&Server::script(replies).await.url()).unwrap() };
    let instance = Instance::new("a", "10.0.0.1", 80);
    let before_1_11 = "CheckID \"lease:a\" does not have associated TTL";
    for replies in [
        vec![unknown()],
        vec![Reply::json(""), unknown()],
        vec![Reply::status("500 Internal Server Error", before_1_11)],
    ] {
        let renewal = consul(replies)
            .await
            .renew("orders", &instance, Status::Up)
            .await;
        assert_eq!(renewal.unwrap(), Renewal::Unknown);
    }
    let gone = consul(vec![unknown()]).await;
    gone.deregister("orders", &instance).await.unwrap();
    let failing = consul(vec![Reply::status("500 Internal Server Error", "oops")]).await;
    let error = failing
        .renew("orders", &instance, Status::Up)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
}

#[tokio::test]
async fn what_is_asked_for_goes_into_the_query() {
    let server = Server::script(vec![answer("7", &["a"])]).await;
    let consul = Consul::new(&server.url()).unwrap();
    let consul = consul
        .filter("Service.Port != 1")
        .tag("blue")
        .datacenter("dc2")
        .namespace("team a")
        .partition("p1")
        .stale(Duration::from_secs(5));
    Watching::start(&consul, "orders").instances().await;
    asked(&server, 2).await;
    let read = "GET /v1/health/service/orders?\
        filter=%28Service.Port+%21%3D+1%29+and+%22blue%22+in+Service.Tags\
        &dc=dc2&ns=team+a&partition=p1&stale=";
    let lines = server.lines();
    assert_eq!(lines[0], read);
    assert_eq!(lines[1], format!("{read}&index=7&wait=300s"));
}

#[tokio::test]
async fn an_instance_is_registered_in_the_namespace_and_partition_and_with_its_tags() {
    let server = Server::start(|_, _| Reply::json("")).await;
    let consul = Consul::new(&server.url()).unwrap();
    let consul = consul.namespace("n").partition("p").datacenter("dc2");
    let instance = Instance::new("a", "h", 80).metadata("tags", "blue, v7,");
    let ttl = Duration::from_secs(30);
    consul.register("orders", &instance, ttl).await.unwrap();
    consul.renew("orders", &instance, Status::Up).await.unwrap();
    consul.deregister("orders", &instance).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "PUT /v1/agent/service/register?replace-existing-checks=true&ns=n&partition=p",
            "PUT /v1/agent/check/update/lease:a?ns=n&partition=p",
            "PUT /v1/agent/check/update/state:a?ns=n&partition=p",
            "PUT /v1/agent/service/deregister/a?ns=n&partition=p",
        ]
    );
    let body: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
    assert_eq!(body["Tags"], json!(["blue", "v7"]));
    assert_eq!(body["Meta"], json!({}));
}

#[tokio::test]
async fn a_stale_or_cached_answer_past_its_age_adds_and_neither_loses_nor_confirms() {
    let aged = |age: &'static str, ids| {
        let headers = [
            ("x-consul-index", "7"),
            ("x-consul-knownleader", "true"),
            ("x-consul-lastcontact", &format!("{age}000")),
            ("age", age),
        ];
        Reply::new("200 OK", &headers, list(ids))
    };
    let limit = Duration::from_secs(5);
    let stale = |consul: Consul| consul.stale(limit);
    let cached = |consul: Consul| consul.cached(limit);
    for (mode, with) in [
        ("stale", &stale as &dyn Fn(Consul) -> Consul),
        ("cached", &cached),
    ] {
        let replies = vec![
            aged("5", &["a"]),
            aged("6", &["a"]),
            aged("6", &["a", "b"]),
            aged("6", &["b"]),
            aged("0", &["b"]),
        ];
        let server = Server::script(replies).await;
        let consul = with(Consul::new(&server.url()).unwrap());
        let mut watching = Watching::start(&consul, "orders");
        assert_eq!(ids(&watching.instances().await), ["a"]);
        let error = watching.failed().await;
        assert!(error.message().contains("6s old"), "{error}");
        assert_eq!(ids(&watching.instances().await), ["a", "b"]);
        watching.failed().await;
        watching.failed().await;
        assert_eq!(ids(&watching.instances().await), ["b"]);
        let lines = server.lines();
        assert!(lines.iter().all(|line| line.contains(mode)), "{lines:?}");
    }
}

#[tokio::test]
async fn the_token_of_a_file_is_read_again_when_it_changes() {
    let server = Server::start(|n, _| answer(&(n + 1).to_string(), &["a"])).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "one\n").unwrap();
    let consul = Consul::new(&server.url()).unwrap().token_file(file.path());
    let sent = |n: usize| {
        let head = server.asked()[n].head.clone();
        let token = head.split("x-consul-token: ").nth(1).unwrap();
        token.lines().next().unwrap().to_owned()
    };
    let mut watching = Watching::start(&consul, "orders");
    watching.instances().await;
    assert_eq!(sent(0), "one");
    std::fs::write(&file, "two").unwrap();
    watching.next().await;
    watching.next().await;
    assert_eq!(sent(2), "two");

    std::fs::write(&file, "").unwrap();
    let error = watching.error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("it is empty"), "{error}");
    let consul = consul.token_file("/nowhere/token");
    let error = Watching::start(&consul, "orders").error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("/nowhere/token"), "{error}");
}

#[tokio::test]
async fn the_watch_goes_on_through_the_next_agent_from_the_same_index() {
    let first = Server::script(vec![answer("7", &["a"]), Reply::Raw(Vec::new())]).await;
    let second = Server::script(vec![answer("9", &["a", "b"])]).await;
    let urls = format!("{},{}", first.url(), second.url());
    let consul = Consul::new(&urls).unwrap();
    assert_eq!(
        consul.name(),
        format!("consul at {}, {}", first.url(), second.url())
    );
    let mut watching = Watching::start(&consul, "orders");
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    asked(&second, 2).await;
    // With another agent to ask, one that hangs should be found out soon.
    let blocking = "GET /v1/health/service/orders?index=7&wait=60s";
    assert_eq!(first.lines()[1..], [blocking]);
    assert_eq!(second.lines()[0], blocking);
}

#[tokio::test]
async fn a_watch_that_is_given_up_says_nothing_against_the_agent() {
    let first = Server::start(|n, _| match n {
        0 => answer("7", &["a"]),
        1 => Reply::Hang,
        _ => Reply::json(""),
    })
    .await;
    let second = Server::script(vec![]).await;
    let consul = Consul::new(&format!("{},{}", first.url(), second.url())).unwrap();
    let mut watching = Watching::start(&consul, "orders");
    watching.instances().await;
    asked(&first, 2).await;
    clock::sleep(Duration::from_secs(1)).await;
    watching.ended.abort();
    while !watching.ended.is_finished() {
        clock::sleep(Duration::from_millis(5)).await;
    }
    let instance = Instance::new("a", "10.0.0.1", 80);
    consul.renew("orders", &instance, Status::Up).await.unwrap();
    assert!(second.lines().is_empty());
}

#[tokio::test]
async fn too_many_requests_at_one_agent_and_no_leader_lead_to_the_next_at_once() {
    for status in ["429 Too Many Requests", "500 Internal Server Error"] {
        let first = Server::start(move |_, _| Reply::status(status, "")).await;
        let second = Server::script(vec![answer("9", &["a"])]).await;
        let consul = Consul::new(&format!("{},{}", first.url(), second.url())).unwrap();
        let began = clock::now();
        let mut watching = Watching::start(&consul, "orders");
        assert_eq!(ids(&watching.instances().await), ["a"]);
        assert!(clock::now() - began < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn what_no_agent_would_allow_or_understand_is_asked_once() {
    for (status, kind) in [
        ("403 Forbidden", ErrorKind::Denied),
        ("400 Bad Request", ErrorKind::Unsupported),
    ] {
        let first = Server::start(move |_, _| Reply::status(status, "")).await;
        let second = Server::script(vec![]).await;
        let consul = Consul::new(&format!("{},{}", first.url(), second.url())).unwrap();
        let error = Watching::start(&consul, "orders").error().await;
        assert_eq!(error.kind(), kind);
        assert!(second.lines().is_empty());
    }
}

#[tokio::test]
async fn a_heartbeat_goes_to_the_next_agent_which_wants_a_registration() {
    let first = Server::script(vec![Reply::json(""), Reply::Raw(Vec::new())]).await;
    let second = Server::start(|n, _| match n {
        0 => Reply::status("404 Not Found", "Unknown check ID"),
        _ => Reply::json(""),
    })
    .await;
    let consul = Consul::new(&format!("{},{}", first.url(), second.url())).unwrap();
    let instance = Instance::new("a", "10.0.0.1", 80);
    let ttl = Duration::from_secs(30);
    consul.register("orders", &instance, ttl).await.unwrap();
    let renew = || consul.renew("orders", &instance, Status::Up);
    assert_eq!(renew().await.unwrap(), Renewal::Unknown);
    consul.register("orders", &instance, ttl).await.unwrap();
    assert_eq!(renew().await.unwrap(), Renewal::Renewed);
    // In quarantine, not even asked.
    assert_eq!(first.lines().len(), 2);
}

#[tokio::test]
async fn an_instance_is_taken_out_of_the_agent_that_knows_it() {
    let first = Server::start(|_, _| Reply::status("404 Not Found", "Unknown service ID")).await;
    let second = Server::start(|_, _| Reply::json("")).await;
    let consul = Consul::new(&format!("{},{}", first.url(), second.url())).unwrap();
    let instance = Instance::new("a", "10.0.0.1", 80);
    consul.deregister("orders", &instance).await.unwrap();
    assert_eq!((first.lines().len(), second.lines().len()), (1, 1));

    let consul = Consul::new(&format!("{},http://127.0.0.1:1", first.url())).unwrap();
    let error = consul.deregister("orders", &instance).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "who knows");
}
