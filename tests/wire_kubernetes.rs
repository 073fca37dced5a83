//! What a Kubernetes API server, or something in its place, may say on the wire, and what is made of it.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod kubernetes;
mod watching;
mod wire;

use std::sync::Mutex;
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Update};
use buttress::registries::kubernetes::Kubernetes;
use kubernetes::{grow_older, ready};
use serde_json::{Value, json};
use watching::Watching;
use wire::{Reply, Server};

const PATH: &str = "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders";

/// The slice `s` with one pod.
fn slice(version: u32, pod: &str) -> Value {
    let mut slice = kubernetes::slice("s", "orders", json!([ready(pod, 1)]));
    slice["metadata"]["resourceVersion"] = version.to_string().into();
    slice
}

fn list(version: u32, pod: &str) -> String {
    let metadata = json!({"resourceVersion": version.to_string()});
    json!({"metadata": metadata, "items": [slice(version, pod)]}).to_string()
}

fn event(kind: &str, object: Value) -> String {
    json!({"type": kind, "object": object}).to_string()
}

fn bookmark(version: u32) -> String {
    event(
        "BOOKMARK",
        json!({"metadata": {"resourceVersion": version.to_string()}}),
    )
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "message": message})
}

/// Lists `a` at version 7, then `b` at 8 and so on, and begins watches, of which the nth says the nth of `watches`.
async fn server(watches: Vec<Reply>) -> Server {
    let (watches, lists) = (Mutex::new(watches.into_iter()), Mutex::new(0));
    Server::start(move |_, request| {
        assert!(request.line.starts_with(PATH), "asked {}", request.line);
        if request.line.contains("watch=true") {
            return watches.lock().unwrap().next().unwrap_or(Reply::open(&[]));
        }
        let mut n = lists.lock().unwrap();
        *n += 1;
        Reply::json(list(6 + *n, ["a", "b", "c"][*n as usize - 1]))
    })
    .await
}

fn watch(server: &Server) -> Watching {
    let kubernetes = Kubernetes::new(&server.url()).unwrap();
    Watching::start(&kubernetes, "orders")
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

async fn asked(server: &Server, count: usize) -> Vec<String> {
    while server.asked().len() < count {
        clock::sleep(Duration::from_millis(5)).await;
    }
    // What was asked has been answered, and the answer is on its way.
    clock::sleep(Duration::from_millis(100)).await;
    server.lines()
}

#[tokio::test]
async fn a_list_is_asked_for_in_pages_and_watched_from_its_version() {
    let mut first = serde_json::from_str::<Value>(&list(7, "a")).unwrap();
    first["metadata"]["continue"] = "more=".into();
    let mut second = serde_json::from_str::<Value>(&list(7, "b")).unwrap();
    second["items"][0]["metadata"]["name"] = "t".into();
    second["items"][0]["endpoints"][0]["addresses"][0] = "10.0.0.2".into();
    let replies = [
        Reply::json(first.to_string()),
        Reply::json(second.to_string()),
    ];
    let server = Server::script(replies.into()).await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    let lines = asked(&server, 3).await;
    assert_eq!(lines[0], format!("{PATH}&limit=100"));
    assert_eq!(lines[1], format!("{PATH}&limit=100&continue=more%3D"));
    let begun =
        format!("{PATH}&watch=true&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=");
    let seconds: u32 = lines[2].strip_prefix(&begun).unwrap().parse().unwrap();
    assert!((300..=600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn events_are_told_and_a_bookmark_confirms() {
    let events = [
        event("MODIFIED", slice(8, "b")),
        bookmark(9),
        event("DELETED", slice(10, "b")),
        event("ADDED", slice(11, "c")),
    ];
    let server = server(vec![Reply::open(&events.each_ref().map(|event| &**event))]).await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    // Who comes is told at once, and who is gone a moment later.
    assert_eq!(ids(&watching.instances().await), ["a", "b"]);
    assert_eq!(watching.next().await, Update::Confirmed);
    assert_eq!(ids(&watching.instances().await), ["a", "b", "c"]);
    watching.until(|instances| ids(instances) == ["c"]).await;
}

#[tokio::test]
async fn whatever_is_no_list_ends_the_watch_with_its_reason() {
    use ErrorKind::{Denied, Failed, Malformed, Unreachable};
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (
            Reply::status(
                "403 Forbidden",
                status(403, "User \"x\" cannot list").to_string(),
            ),
            Denied,
            "`list` on endpointslices of discovery.k8s.io in namespace `default` is missing: it answered 403 Forbidden: User \"x\"",
        ),
        (
            Reply::status("401 Unauthorized", ""),
            Denied,
            "or there is none: it answered 401",
        ),
        (
            Reply::status("404 Not Found", "404 page not found"),
            Failed,
            "older than 1.21",
        ),
        (
            Reply::status("410 Gone", status(410, "too old").to_string()),
            Failed,
            "too old",
        ),
        (
            Reply::status("429 Too Many Requests", "later"),
            Failed,
            "later",
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
            Reply::json(r#"{"metadata":{}}"#),
            Malformed,
            "cannot be understood",
        ),
        (
            Reply::json(r#"{"metadata":{"resourceVersion":"7"},"items":[{}]}"#),
            Malformed,
            "cannot be understood",
        ),
        (Reply::json(list(7, "a")).cut(), Unreachable, "broke off"),
        (
            Reply::Raw(b"garbage\r\n\r\n".to_vec()),
            Unreachable,
            "broke off",
        ),
        (Reply::Raw(Vec::new()), Unreachable, "broke off"),
    ];
    for (reply, kind, text) in table {
        let Reply::Raw(raw) = reply else {
            unreachable!()
        };
        let server = Server::start(move |_, _| Reply::Raw(raw.clone())).await;
        let error = watch(&server).error().await;
        assert_eq!(error.kind(), kind, "{}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
    }
    let endless = r#"{"metadata":{"resourceVersion":"7","continue":"x"}}"#;
    let server = Server::start(move |_, _| Reply::json(endless)).await;
    let error = watch(&server).error().await;
    assert_eq!(error.kind(), Malformed);
    assert!(error.message().contains("more than 1000 pages"), "{error}");
}

#[tokio::test]
async fn whatever_is_no_event_ends_the_watch_with_its_reason() {
    use ErrorKind::{Denied, Failed, Malformed, Unreachable};
    let said = |code, message| Reply::open(&[&event("ERROR", status(code, message))]);
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"ty".to_owned();
    let table: Vec<(Reply, ErrorKind, &str)> = vec![
        (Reply::open(&["{"]), Malformed, "cannot be understood"),
        (Reply::open(&["{}"]), Malformed, "cannot be understood"),
        (
            Reply::open(&["\u{fffd}"]),
            Malformed,
            "cannot be understood",
        ),
        (
            Reply::open(&[&event("ADDED", json!({}))]),
            Malformed,
            "cannot be understood",
        ),
        (
            Reply::open(&[&event("RENAMED", slice(8, "b"))]),
            Malformed,
            "cannot be understood",
        ),
        (
            said(500, "etcd is down"),
            Failed,
            "it ended the watch: etcd is down",
        ),
        (said(403, "no longer"), Denied, "`watch` on endpointslices"),
        // Right after the list, it would go on like that for ever.
        (said(410, "too old"), Failed, "too old"),
        (Reply::open(&[&bookmark(3)]), Failed, "another one"),
        (Reply::status("410 Gone", ""), Failed, "410"),
        (
            Reply::status("403 Forbidden", ""),
            Denied,
            "`watch` on endpointslices",
        ),
        (Reply::json(""), Failed, "ends the watch at once"),
        (Reply::Raw(cut.into_bytes()), Unreachable, "broke off"),
        (Reply::status("503 Service Unavailable", ""), Failed, "503"),
    ];
    for (reply, kind, text) in table {
        let server = server(vec![reply]).await;
        let error = watch(&server).error().await;
        assert_eq!(error.kind(), kind, "{text}: {}", error.message());
        assert!(error.message().contains(text), "{}", error.message());
    }
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_listed_again_and_told_as_one_update() {
    for outdated in [
        event("ERROR", status(410, "too old resource version: 7 (9)")),
        event(
            "ERROR",
            status(504, "Too large resource version: 7, current: 3"),
        ),
        bookmark(3),
    ] {
        // The first ends in good order once it has lasted; the next goes on from there.
        let Reply::Open(first) = Reply::open(&[&event("MODIFIED", slice(9, "z"))]) else {
            unreachable!()
        };
        let first = Reply::Until(first);
        let server = server(vec![first, Reply::open(&[&outdated])]).await;
        let mut watching = watch(&server);
        assert_eq!(ids(&watching.instances().await), ["a"]);
        assert_eq!(ids(&watching.instances().await), ["a", "z"]);
        grow_older(Duration::from_secs(11)).await;
        assert_eq!(ids(&watching.instances().await), ["z"]);
        server.end();
        assert_eq!(ids(&watching.instances().await), ["b"], "{outdated}");
        let lines = asked(&server, 5).await;
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| line.contains("watch=true"))
            .collect();
        assert_eq!(kinds, [false, true, true, false, true], "{outdated}");
        assert!(lines[2].contains("resourceVersion=9&"), "{}", lines[2]);
        assert!(lines[4].contains("resourceVersion=8&"), "{}", lines[4]);
    }
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_given_up_and_all_is_listed_again() {
    let server = server(vec![Reply::open(&[&bookmark(7)])]).await;
    let mut watching = watch(&server);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    assert_eq!(watching.next().await, Update::Confirmed);
    grow_older(Duration::from_secs(85)).await;
    assert_eq!(asked(&server, 2).await.len(), 2);
    grow_older(Duration::from_secs(6)).await;
    assert_eq!(ids(&watching.instances().await), ["b"]);
}

#[tokio::test]
async fn silence_in_place_of_an_answer_times_out() {
    for replies in [vec![], vec![Reply::json(list(7, "a"))]] {
        let count = replies.len() + 1;
        let server = Server::script(replies).await;
        let watching = watch(&server);
        asked(&server, count).await;
        grow_older(Duration::from_secs(11)).await;
        assert_eq!(watching.error().await.kind(), ErrorKind::TimedOut);
    }
    let nobody = Kubernetes::new("http://127.0.0.1:1").unwrap();
    let error = Watching::start(&nobody, "orders").error().await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);
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
async fn each_request_carries_the_token_as_it_is_then() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "f1rst\n").unwrap();
    let path = file.path().to_owned();
    let server = Server::start(move |n, _| match n {
        0 => {
            std::fs::write(&path, "sec0nd\n").unwrap();
            Reply::json(list(7, "a"))
        }
        _ => Reply::status("403 Forbidden", "not sec0nd"),
    })
    .await;
    let kubernetes = Kubernetes::new(&server.url())
        .unwrap()
        .token_file(file.path());
    let error = Watching::start(&kubernetes, "orders").error().await;
    let heads: Vec<_> = server
        .asked()
        .into_iter()
        .map(|request| request.head)
        .collect();
    assert!(
        heads[0].contains("authorization: bearer f1rst\r\n"),
        "{}",
        heads[0]
    );
    assert!(
        heads[1].contains("authorization: bearer sec0nd\r\n"),
        "{}",
        heads[1]
    );
    assert!(!error.message().contains("sec0nd"), "{error}");
}

#[tokio::test]
async fn what_is_no_url_and_no_certificate_is_said_at_once() {
    for url in ["", "10.0.0.1:6443", "ftp://a", "https://u:p@a:6443"] {
        let error = Kubernetes::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
        assert!(!error.to_string().contains("u:p"), "{error}");
    }
    let kubernetes = Kubernetes::new("https://10.0.0.1:6443/").unwrap();
    assert_eq!(kubernetes.name(), "kubernetes at https://10.0.0.1:6443");
    assert_eq!(
        kubernetes.ca(b"no PEM").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}
