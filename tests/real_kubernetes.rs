//! Against the real Kubernetes API server of `KUBERNETES_URL`, whose `KUBERNETES_TOKEN` may do everything and whose
//! certificate `KUBERNETES_CA` has signed.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod kubernetes;
mod watching;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, Status, Update};
use buttress::registries::kubernetes::Kubernetes;
use futures_util::StreamExt as _;
use kubernetes::{Api, grow_older, pod, ready, slice};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use watching::proxy::Proxy;
use watching::{Watching, unique};

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.id).collect()
}

fn statuses(instances: &[Instance]) -> Vec<(&str, Status)> {
    instances.iter().map(|i| (&*i.id, i.status)).collect()
}

#[tokio::test]
async fn endpoints_come_change_drain_and_go() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let mut watching = Watching::start(&api.registry(), &service);
    assert_eq!(watching.instances().await, [], "nobody is a list as well");

    let mut a = ready("a", 1);
    a["zone"] = "z1".into();
    a["nodeName"] = "n1".into();
    a["hints"] = json!({"forZones": [{"name": "z1"}]});
    api.put(&service, &service, json!([a])).await;
    let expected = Instance::new("a", "10.0.0.1", 80).zone("z1");
    let expected = expected
        .metadata("node", "n1")
        .metadata("hints.zones", "z1");
    assert_eq!(watching.instances().await, [expected]);

    api.put(
        &service,
        &service,
        json!([a, pod("b", 2, json!({"ready": false}))]),
    )
    .await;
    let list = watching.instances().await;
    assert_eq!(statuses(&list), [("a", Status::Up), ("b", Status::Down)]);

    // What is not said of an endpoint means yes.
    api.put(&service, &service, json!([a, pod("b", 2, json!({}))]))
        .await;
    let list = watching.instances().await;
    assert_eq!(statuses(&list), [("a", Status::Up), ("b", Status::Up)]);

    let draining = json!({"ready": false, "serving": true, "terminating": true});
    api.put(
        &service,
        &service,
        json!([pod("a", 1, draining.clone()), ready("b", 2)]),
    )
    .await;
    let list = watching.instances().await;
    assert_eq!(
        statuses(&list),
        [("a", Status::OutOfService), ("b", Status::Up)]
    );

    api.put(&service, &service, json!([ready("b", 2)])).await;
    assert_eq!(ids(&watching.instances().await), ["b"]);

    // Nobody else is left: who drains is still called.
    api.put(
        &service,
        &service,
        json!([pod("b", 2, draining), pod("c", 3, json!({"ready": false}))]),
    )
    .await;
    let list = watching.instances().await;
    assert_eq!(statuses(&list), [("b", Status::Up), ("c", Status::Down)]);
    api.delete(&service).await;
    assert_eq!(watching.instances().await, []);
}

#[tokio::test]
async fn slices_are_one_list_and_who_is_moved_between_them_stays() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let [one, two, six] = ["1", "2", "6"].map(|n| format!("{service}-{n}"));
    api.put(&one, &service, json!([ready("a", 1), ready("b", 2)]))
        .await;
    api.put(&two, &service, json!([ready("c", 3)])).await;
    // Another service, whose name begins with the same.
    api.put(
        &format!("{service}-x"),
        &format!("{service}-too"),
        json!([ready("x", 9)]),
    )
    .await;
    let mut watching = Watching::start(&api.registry(), &service);
    assert_eq!(ids(&watching.instances().await), ["a", "b", "c"]);

    // First in both, then in the other; first in none, then back.
    api.put(&two, &service, json!([ready("c", 3), ready("b", 2)]))
        .await;
    api.put(&one, &service, json!([ready("a", 1)])).await;
    api.put(&two, &service, json!([ready("c", 3)])).await;
    api.put(&one, &service, json!([ready("a", 1), ready("b", 2)]))
        .await;
    // A slice that is deleted in favour of another.
    api.delete(&two).await;
    api.put(
        &one,
        &service,
        json!([ready("a", 1), ready("b", 2), ready("c", 3)]),
    )
    .await;
    // The other family of a pod that is known, and of one that is not.
    let mut other = slice(&six, &service, json!([ready("a", 1), ready("d", 1)]));
    other["addressType"] = "IPv6".into();
    other["endpoints"][0]["addresses"][0] = "fd00::1".into();
    other["endpoints"][1]["addresses"][0] = "fd00::2".into();
    api.put_slice("default", other).await;
    let list = watching.instances().await;
    assert_eq!(ids(&list), ["a", "b", "c", "d"]);
    assert_eq!((&*list[0].host, &*list[3].host), ("10.0.0.1", "fd00::2"));

    let began = clock::now();
    for name in [&one, &six] {
        api.delete(name).await;
    }
    assert_eq!(watching.until(|instances| instances.is_empty()).await, []);
    assert!(clock::now() - began >= Duration::from_millis(500));
}

#[tokio::test]
async fn what_flaps_is_told_in_order_and_ends_as_it_is() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let mut watching = Watching::start(&api.registry(), &service);
    watching.instances().await;
    for n in 1..=50 {
        let flag = json!({"ready": n % 2 == 0});
        let mut endpoint = pod("a", 1, flag);
        endpoint["zone"] = format!("z{n:02}").into();
        api.put(&service, &service, json!([endpoint])).await;
    }
    let mut zones = Vec::new();
    let last = watching.until(|instances| {
        zones.extend(instances[0].zone.clone());
        instances[0].zone.as_deref() == Some("z50")
    });
    assert_eq!(last.await[0].status, Status::Up);
    assert!(zones.is_sorted(), "{zones:?}");
}

#[tokio::test]
async fn a_port_is_chosen_by_name_or_number_and_one_that_is_missing_is_named() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let mut both = slice(&service, &service, json!([ready("a", 1)]));
    both["ports"] = json!([
        {"name": "admin", "port": 9000, "protocol": "TCP"},
        {"name": "web", "port": 8443, "protocol": "TCP", "appProtocol": "https"},
    ]);
    api.put_slice("default", both).await;
    for port in ["web", "8443"] {
        let mut watching = Watching::start(&api.registry().port(port), &service);
        let expected = Instance::new("a", "10.0.0.1", 8443).secure(true);
        assert_eq!(watching.instances().await, [expected]);
    }
    for registry in [api.registry(), api.registry().port("grpc")] {
        let mut watching = Watching::start(&registry, &service);
        let Update::Failed(error) = watching.next().await else {
            panic!("it chose one");
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("admin 9000, web 8443"), "{error}");
    }

    // Once the Service is put right, so is the list.
    let mut watching = Watching::start(&api.registry(), &service);
    assert!(matches!(watching.next().await, Update::Failed(_)));
    api.put(&service, &service, json!([ready("a", 1)])).await;
    assert_eq!(
        watching.instances().await,
        [Instance::new("a", "10.0.0.1", 80)]
    );
}

#[tokio::test]
async fn a_name_may_say_its_namespace() {
    let Some(api) = Api::real() else { return };
    let (service, namespace) = (unique("orders"), unique("shop"));
    let body = json!({"metadata": {"name": namespace}});
    api.ask(Method::POST, "api/v1/namespaces", body).await;
    api.put_slice(
        &namespace,
        slice("s", &service, json!([ready("theirs", 1)])),
    )
    .await;
    api.put("ours", &service, json!([ready("ours", 1)])).await;
    let elsewhere = api.registry().namespace(&namespace);
    for (registry, name, id) in [
        (api.registry(), service.to_uppercase(), "ours"),
        (api.registry(), format!("{service}.{namespace}"), "theirs"),
        (
            api.registry(),
            format!("{service}.{namespace}.svc.cluster.local"),
            "theirs",
        ),
        (elsewhere.clone(), service.clone(), "theirs"),
        (elsewhere.clone(), format!("{service}.default.svc"), "ours"),
    ] {
        let mut watching = Watching::start(&registry, &name);
        assert_eq!(ids(&watching.instances().await), [id], "{name}");
    }
    for name in [
        "api.example.com",
        "a,b",
        "no-such-service.no-such-namespace",
    ] {
        let mut watching = Watching::start(&api.registry(), name);
        assert_eq!(watching.instances().await, [], "{name}");
    }
}

#[tokio::test]
async fn who_may_not_is_told_which_right_is_missing() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    api.put(&service, &service, json!([ready("a", 1)])).await;
    let [none, list, both] = ["none", "list", "both"].map(unique);
    let none = api.account(&none, &[]).await;
    let list = api.account(&list, &["list"]).await;
    let both = api.account(&both, &["list", "watch"]).await;
    let at = |token: &str| api.at(&api.url).token(token.to_owned());

    for (registry, said) in [
        (
            api.at(&api.url),
            "`list` on endpointslices of discovery.k8s.io in namespace `default`",
        ),
        (at("n0nsense"), "does not accept the token"),
        (
            at(&none),
            "`list` on endpointslices of discovery.k8s.io in namespace `default`",
        ),
        (
            at(&list),
            "`watch` on endpointslices of discovery.k8s.io in namespace `default`",
        ),
        (
            at(&both).namespace("kube-system"),
            "`list` on endpointslices of discovery.k8s.io in namespace `kube-system`",
        ),
    ] {
        let error = Watching::start(&registry, &service).error().await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.message());
        assert!(error.message().contains(said), "{}", error.message());
        for token in [&none, &list, &both] {
            assert!(!format!("{error:?} {}", error.message()).contains(token.as_str()));
        }
    }
    let mut watching = Watching::start(&at(&both), &service);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    api.put(&service, &service, json!([ready("b", 1)])).await;
    watching.until(|instances| ids(instances) == ["b"]).await;
}

#[tokio::test]
async fn who_it_is_not_is_not_believed() {
    let Some(api) = Api::real() else { return };
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = Kubernetes::new(&api.url)
        .unwrap()
        .ca(other.cert.pem().as_bytes())
        .unwrap();
    for registry in [Kubernetes::new(&api.url).unwrap(), other] {
        let error = Watching::start(&registry, "orders").error().await;
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(
            error.message().contains("certificate"),
            "{}",
            error.message()
        );
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_used_from_then_on() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    api.put(&service, &service, json!([ready("a", 1)])).await;
    let [old, new] = ["old", "new"].map(unique);
    let rights = ["list", "watch"];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, api.account(&old, &rights).await).unwrap();

    let proxy = Proxy::start(&api.url).await;
    let registry = api.at(&proxy.url).token_file(file.path());
    let mut watching = Watching::start(&registry, &service);
    assert_eq!(ids(&watching.instances().await), ["a"]);
    std::fs::write(&file, api.account(&new, &rights).await + "\n").unwrap();
    // Whose account is gone is nobody.
    let path = format!("api/v1/namespaces/default/serviceaccounts/{old}");
    api.ask(Method::DELETE, &path, json!({})).await;
    watching_has_begun(&mut watching, &api, &service).await;
    grow_older(Duration::from_secs(11)).await;
    proxy.cut();
    api.put(&service, &service, json!([ready("z", 1)])).await;
    proxy.mend();
    watching.until(|instances| ids(instances) == ["z"]).await;

    std::fs::remove_file(file.path()).unwrap();
    let error = Watching::start(&registry, &service).error().await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.message().contains("cannot read the token in /"),
        "{}",
        error.message()
    );
}

/// What is told now comes from the watch, not from the list before.
async fn watching_has_begun(watching: &mut Watching, api: &Api, service: &str) {
    api.put(service, service, json!([ready("m", 7)])).await;
    watching.until(|instances| ids(instances) == ["m"]).await;
}

#[tokio::test]
async fn what_happens_while_the_connection_is_broken_is_told_as_one_update() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let [one, two] = ["1", "2"].map(|n| format!("{service}-{n}"));
    let proxy = Proxy::start(&api.url).await;
    let registry = api.at(&proxy.url).token(api.token.clone());
    let mut watching = Watching::start(&registry, &service);
    assert_eq!(watching.instances().await, []);
    watching_has_begun(&mut watching, &api, &service).await;
    grow_older(Duration::from_secs(11)).await;
    proxy.cut();
    api.delete(&service).await;
    api.put(&one, &service, json!([ready("a", 1), ready("b", 2)]))
        .await;
    api.put(&two, &service, json!([ready("c", 3)])).await;
    api.put(&one, &service, json!([ready("a", 1)])).await;
    proxy.mend();
    assert_eq!(ids(&watching.instances().await), ["a", "c"]);

    // Broken off soon after it began, it is an error.
    proxy.cut();
    assert_eq!(watching.error().await.kind(), ErrorKind::Unreachable);
}

/// Between the registry and the API server, at the level of HTTP.
struct Gateway {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    ended: watch::Sender<usize>,
}

impl Gateway {
    /// Asks for `instead(n, path)` where the nth request is for `path`.
    async fn start(
        api: &Api,
        instead: impl Fn(usize, String) -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (ended, ends) = watch::channel(0);
        let (client, server, seen) = (api.client.clone(), api.url.clone(), Arc::clone(&asked));
        let count = Arc::new(AtomicUsize::new(0));
        let pass = move |request: Request| {
            let (client, mut ends) = (client.clone(), ends.clone());
            let path = request.uri().path_and_query().unwrap().to_string();
            seen.lock().unwrap().push(path.clone());
            let n = count.fetch_add(1, Ordering::Relaxed);
            let target = format!("{server}{}", instead(n, path));
            async move {
                let token = request.headers()["authorization"].clone();
                let answer = client
                    .get(target)
                    .header("authorization", token)
                    .send()
                    .await
                    .unwrap();
                let status = answer.status();
                ends.mark_unchanged();
                let end = async move { ends.changed().await };
                let body = answer.bytes_stream().take_until(Box::pin(end));
                Response::builder()
                    .status(status)
                    .body(Body::from_stream(body))
                    .unwrap()
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass)).await });
        Self { url, asked, ended }
    }

    /// Ends all answers under way, in good order.
    fn end(&self) {
        self.ended.send_modify(|n| *n += 1);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_watch_that_ends_in_good_order_goes_on_from_where_it_was() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let gateway = Gateway::start(&api, |_, path| path).await;
    let registry = api.at(&gateway.url).token(api.token.clone());
    let mut watching = Watching::start(&registry, &service);
    assert_eq!(watching.instances().await, []);
    watching_has_begun(&mut watching, &api, &service).await;
    grow_older(Duration::from_secs(11)).await;
    gateway.end();
    api.put(&service, &service, json!([ready("a", 1), ready("m", 7)]))
        .await;
    assert_eq!(ids(&watching.instances().await), ["a", "m"]);
    let asked = gateway.asked();
    let watches = asked.iter().filter(|path| path.contains("watch=true"));
    assert_eq!((asked.len(), watches.count()), (3, 2), "{asked:?}");

    gateway.end();
    let error = watching.error().await;
    assert!(
        error.message().contains("ends the watch at once"),
        "{error}"
    );
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_and_begun_again_where_it_was_compacted() {
    let Some(api) = Api::real() else { return };
    let Some(etcd) = watching::real("KUBERNETES_ETCD_URL") else {
        return;
    };
    let service = unique("orders");
    for n in 0..101 {
        let name = format!("{service}-{n:03}");
        api.put(&name, &service, json!([ready(&name, n)])).await;
    }
    // A new version, so that what was before it may be compacted.
    let client = reqwest::Client::new();
    let post = async |path: &str, body| -> Value {
        let answer = client.post(format!("{etcd}/v3/kv/{path}")).json(&body);
        answer.send().await.unwrap().json().await.unwrap()
    };
    let put = post("put", json!({"key": "eA==", "value": "eA=="})).await;
    let compaction = json!({"revision": put["header"]["revision"], "physical": true});
    let compacted = post("compaction", compaction).await;
    assert!(compacted["header"].is_object(), "{compacted}");
    // The second page is asked for as of a version that is gone.
    let outdate = |n: usize, path: String| match path.split_once("continue=") {
        Some((head, token)) if n == 1 => {
            let token = STANDARD_NO_PAD
                .decode(token.trim_end_matches("%3D"))
                .unwrap();
            let mut token: Value = serde_json::from_slice(&token).unwrap();
            token["rv"] = 1.into();
            format!(
                "{head}continue={}",
                STANDARD_NO_PAD.encode(token.to_string())
            )
        }
        _ => path,
    };
    let gateway = Gateway::start(&api, outdate).await;
    let registry = api.at(&gateway.url).token(api.token.clone());
    let mut watching = Watching::start(&registry, &service);
    assert_eq!(watching.instances().await.len(), 101);
    let asked = gateway.asked();
    let firsts = asked
        .iter()
        .filter(|path| !path.contains("continue") && !path.contains("watch"));
    assert_eq!(firsts.count(), 2, "{asked:?}");
    api.delete(&format!("{service}-000")).await;
    assert_eq!(watching.instances().await.len(), 100);
}

#[tokio::test]
async fn a_watch_that_hears_nothing_is_confirmed_from_time_to_time() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    let mut watching = Watching::start(&api.registry(), &service);
    assert_eq!(watching.instances().await, []);
    let wait = Duration::from_secs(85);
    let next = tokio::time::timeout(wait, watching.updates.recv()).await;
    assert_eq!(next.unwrap(), Some(Update::Confirmed));
}

#[tokio::test]
async fn kubernetes_registers_by_itself_and_says_so() {
    let Some(api) = Api::real() else { return };
    let instance = Instance::new("a", "10.0.0.1", 80);
    let registered = api
        .registry()
        .register("orders", &instance, Duration::from_secs(30));
    let error = registered.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("does so by itself"), "{error}");
}
