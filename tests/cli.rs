//! The command `buttress`, as somebody uses it who asks why nobody calls an instance.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod kubernetes;
mod watching;
mod wire;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use buttress::clock;
use buttress::discovery::{Instance, Registry, Resolver, SnapshotFile, Status};
use buttress::registries::consul::Consul;
use buttress::registries::memory::Memory;
use buttress::registries::zookeeper::ZooKeeper;
use kubernetes::{Api, ready};
use serde_json::{Value, json};
use tempfile::TempDir;
use watching::zone::Zone;
use watching::{real, unique};
use wire::{Reply, Server};

fn buttress(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buttress"));
    command.args(args);
    for name in [
        "BUTTRESS_TOKEN",
        "BUTTRESS_USER",
        "BUTTRESS_PASSWORD",
        "CONSUL_HTTP_TOKEN",
    ] {
        command.env_remove(name).env_remove(format!("{name}_FILE"));
    }
    command
}

/// Exit code, standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    ended(buttress(args).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A file of instances and its URL.
fn file(instances: Value) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), instances);
    let url = format!("file:{}", folder.path().join("peers.json").display());
    (folder, url)
}

fn write(folder: &Path, instances: Value) {
    let text = json!({ "instances": instances }).to_string();
    fs::write(folder.join("new"), text).unwrap();
    fs::rename(folder.join("new"), folder.join("peers.json")).unwrap();
}

fn orders() -> Value {
    json!({"orders": [
        {"id": "a", "host": "10.0.0.1", "port": 80, "zone": "z1"},
        {"id": "b", "host": "10.0.0.2", "port": 80, "status": "down"},
        {"id": "c", "host": "10.0.0.3", "port": 80, "status": "out_of_service"},
        {"id": "d", "host": "10.0.0.4", "port": 80, "status": "starting"},
        {"id": "e", "host": "10.0.0.5", "port": 80, "weight": 0, "zone": "z2"},
    ]})
}

/// A `buttress watch` whose lines are read as they come.
struct Watching {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Watching {
    fn start(args: &[&str]) -> Self {
        let mut child = buttress(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with `part` in it.
    fn until(&mut self, part: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no line with {part:?} after {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Ctrl-C, then the exit code and what it said on the standard error.
    #[cfg(unix)]
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        (code, said)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_instance_is_shown_with_whether_it_is_called_and_why() {
    let (_folder, url) = file(orders());
    let (code, out, err) = run(&["resolve", &url, "orders", "--zone", "z1"]);
    assert_eq!((code, &*err), (0, ""));
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].starts_with("orders, as a client of file "),
        "{out}"
    );
    assert_eq!(lines[1], "version 1, fresh: 2 called, 0 held, 3 not called");
    assert_eq!(lines[2], "");
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let table: Vec<_> = lines[3..].iter().map(|line| squeezed(line)).collect();
    assert_eq!(
        table,
        [
            "ID ADDRESS ZONE WEIGHT STATUS",
            "a 10.0.0.1:80 z1 1 up called",
            "e 10.0.0.5:80 z2 0 up called only if nobody else is left: its weight is 0; in zone z2, not z1",
            "b 10.0.0.2:80 - 1 down not called: its health check does not pass; not known to be in zone z1",
            "c 10.0.0.3:80 - 1 out_of_service not called: out of service, taken out by its operator or about to stop; not known to be in zone z1",
            "d 10.0.0.4:80 - 1 starting not called: registered, but not yet ready; not known to be in zone z1",
        ]
    );
}

#[test]
fn the_exit_code_says_found_empty_or_failed() {
    let down = json!({"orders": [{"host": "h", "port": 80, "status": "down"}]});
    let (_folder, url) = file(down);
    let (code, out, err) = run(&["resolve", &url, "orders"]);
    assert_eq!((code, &*err), (1, ""));
    assert!(
        out.contains("names 1 of them, none of which is up"),
        "{out}"
    );

    let (code, out, _) = run(&["resolve", &url, "stock"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("names no instance of `stock`: nobody is registered under that name"),
        "{out}"
    );

    let missing = url.replace("peers", "nobody");
    let (code, out, err) = run(&["resolve", &missing, "orders", "--timeout", "100ms"]);
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("nobody.json: cannot be read: "), "{err}");

    let (code, out, err) = run(&[
        "resolve",
        "consul://127.0.0.1:1",
        "orders",
        "--timeout",
        "200ms",
    ]);
    assert_eq!((code, &*out), (2, ""));
    assert!(
        err.starts_with("buttress: consul at http://127.0.0.1:1: no connection: "),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn json_says_the_same_to_machines() {
    let (_folder, url) = file(orders());
    let (code, out, _) = run(&["resolve", &url, "orders", "--json"]);
    assert_eq!(code, 0);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&said["freshness"], &said["version"]),
        (&json!("fresh"), &json!(1))
    );
    assert_eq!(
        (&said["error"], &said["service"]),
        (&Value::Null, &json!("orders"))
    );
    let found = |index: usize| said["instances"][index].clone();
    assert_eq!(
        found(0),
        json!({
            "id": "a", "host": "10.0.0.1", "port": 80, "secure": false, "zone": "z1", "weight": 1,
            "status": "up", "verdict": "called", "why": "called", "changed": null, "metadata": {},
        })
    );
    assert_eq!(
        (found(2)["id"].as_str(), found(2)["verdict"].as_str()),
        (Some("b"), Some("not called"))
    );

    let (code, out, _) = run(&[
        "resolve",
        "consul://127.0.0.1:1",
        "orders",
        "--json",
        "--timeout",
        "1ms",
    ]);
    assert_eq!(code, 2);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&said["freshness"], &said["instances"]),
        (&json!("unanswered"), &json!([]))
    );
}

#[cfg(unix)]
#[test]
fn a_watch_prints_a_line_for_each_change_until_ctrl_c() {
    let (folder, url) = file(orders());
    let mut watching = Watching::start(&["watch", &url, "orders"]);
    let line = watching.until("+ b ");
    let (time, line) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), time.ends_with('Z')), (20, true), "{time}");
    assert_eq!(
        line,
        "+ b 10.0.0.2:80 zone=- weight=1 down: not called: its health check does not pass"
    );

    let mut changed = orders();
    changed["orders"][1]["status"] = json!("up");
    changed["orders"].as_array_mut().unwrap().remove(0);
    write(folder.path(), changed);
    watching.until("orders version 2, fresh: 2 called, 0 held, 2 not called");
    watching.until("~ b 10.0.0.2:80 zone=- weight=1 up: called");
    watching.until("- a 10.0.0.1:80 zone=z1 weight=1 up: gone");

    fs::write(folder.path().join("peers.json"), "{").unwrap();
    watching.until("orders version 2, stale since 0s: 2 called");
    let trouble = watching.until(" ! file ");
    assert!(trouble.contains("EOF while parsing"), "{trouble}");
    assert_eq!(watching.interrupt(), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_holds_is_shown_with_the_reason() {
    let entry = |id: &str| json!({"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": id, "Service": "orders", "Port": 80}, "Checks": []});
    let all: Vec<_> = ["a", "b", "c", "d"].map(entry).into();
    let answers = [json!(all), json!([entry("a")])];
    let server = Server::start(move |nth, _| match answers.get(nth) {
        Some(answer) => {
            let index = (nth + 1).to_string();
            Reply::new("200 OK", &[("x-consul-index", &*index)], answer.to_string())
        }
        None => Reply::Hang,
    })
    .await;
    let url = format!("consul://{}", server.address);
    tokio::task::spawn_blocking(move || {
        let mut watching = Watching::start(&["watch", &url, "orders"]);
        watching.until("orders version 2, fresh: 1 called, 3 held, 0 not called");
        let line = watching.until(" d 10.0.0.1:80");
        assert!(
            line.contains("gone: held by the guard: the registry no longer names it"),
            "{line}"
        );
    })
    .await
    .unwrap();
}

#[test]
fn an_unknown_scheme_names_the_known_ones() {
    for args in [
        ["watch", "nacos://me:s3cret@h", "orders"],
        ["resolve", "nacos://me:s3cret@h", "orders"],
    ] {
        let (code, _, err) = run(&args);
        assert_eq!(code, 2);
        assert_eq!(
            err,
            "buttress: `…@h` names no registry: a URL begins with one of consul, eureka, etcd, zookeeper, \
             kubernetes, dns, file, as in consul://127.0.0.1:8500\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_or_token_is_sent_and_never_printed() {
    let server =
        Server::start(|_, request| Reply::status("403 Forbidden", request.head.clone())).await;
    let address = server.address.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let told = |url: &str| {
            let mut command = buttress(&["resolve", url, "orders", "--json", "--timeout", "3s"]);
            command
                .env("BUTTRESS_TOKEN", "t0ken")
                .env("BUTTRESS_PASSWORD", "pa55")
                .env("BUTTRESS_USER", "me");
            let (code, out, err) = ended(command.output().unwrap());
            assert_eq!(code, 2, "{err}");
            for secret in ["t0ken", "pa55", "s3"] {
                assert!(!(out.clone() + &err).contains(secret), "{out}{err}");
            }
        };
        told(&format!("consul://{address}"));
        told(&format!("consul://us3r:s3cret@{address}"));
        told(&format!("eureka://us3r:s3cret@{address}/eureka"));
        told(&format!("etcd://us3r:s3cret@{address}"));
        // What ends a host, or one of several, ends no password.
        told(&format!("consul://us3r:s3/c,r?e#t@{address}"));
        for wrong in [
            &["consul://me:s3cret@h"][..],
            &["watch", "orders", "consul://me:s3cret@h"],
            &["resolve", "file:x.json", "orders", "consul://me:s3cret@h"],
            &["watch", "consul://me:s3/cret@h:99999", "orders"],
        ] {
            let (code, out, err) = run(wrong);
            assert_eq!(code, 2);
            assert!(!(out + &err).contains("cret"), "{err}");
        }
    });
    asked.await.unwrap();
    let heads: Vec<_> = server
        .asked()
        .into_iter()
        .map(|request| request.head)
        .collect();
    assert!(
        heads
            .iter()
            .any(|head| head.contains("x-consul-token: t0ken")),
        "{heads:?}"
    );
}

#[test]
fn what_comes_from_a_registry_does_not_steer_the_terminal() {
    let (_folder, url) = file(json!({"orders": [{"id": "a\u{1b}[2J", "host": "h", "port": 80}]}));
    let (_, out, _) = run(&["resolve", &url, "orders"]);
    assert!(
        !out.contains('\u{1b}') && out.contains("a\\u{1b}[2J"),
        "{out:?}"
    );
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    let (_folder, url) = file(orders());
    let mut child = buttress(&["resolve", &url, "orders"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, err) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, &*err), (0, ""));
}

/// What a client leaves in its file, which comes with the folder that it is in.
fn snapshot() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("instances.snapshot");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let memory = Memory::new();
        let instance = Instance::new("a\u{1b}[2J", "10.0.0.1", 80);
        let instance = instance.zone("z1").metadata("version", "1.4");
        let ttl = Duration::from_secs(3600);
        memory.register("orders", &instance, ttl).await.unwrap();
        let file = SnapshotFile::new(&path).owner("trips in production");
        let watch = Resolver::new(memory).snapshot_file(file).watch("orders");
        watch.resolved().await.unwrap();
        clock::sleep(Duration::from_secs(60)).await;
    });
    (folder, path.display().to_string())
}

#[test]
fn a_snapshot_file_is_shown_with_its_age_and_its_instances() {
    let (_folder, path) = snapshot();
    let (code, out, err) = run(&["snapshot", &path]);
    assert_eq!((code, &*err), (0, ""));
    let lines: Vec<_> = out.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], format!("{path}, of `trips in production`"));
    assert!(lines[1].starts_with("version 1, written 20"), "{out}");
    assert!(
        lines[1].ends_with("s ago: 1 services, 1 instances"),
        "{out}"
    );
    assert_eq!(lines[2], "");
    assert!(
        lines[3].starts_with("orders: 1 instances, confirmed 20")
            && lines[3].ends_with("s ago by registry 1 of the chain"),
        "{out}"
    );
    assert_eq!(lines[4], "  ID          ADDRESS      ZONE  WEIGHT  STATUS");
    assert_eq!(lines[5], "  a\\u{1b}[2J  10.0.0.1:80  z1    1       up");
    assert_eq!(lines.len(), 6, "{out}");

    let (code, out, _) = run(&["snapshot", &path, "--json"]);
    assert_eq!(code, 0);
    let mut said: Value = serde_json::from_str(&out).unwrap();
    let service = &mut said["services"][0];
    for time in [service["confirmed"].take(), said["written"].take()] {
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
    }
    assert!(said["services"][0]["age_seconds"].take().as_u64() < Some(60));
    assert_eq!(
        (&said["version"], &said["owner"], &said["refused"]),
        (&json!("1"), &json!("trips in production"), &Value::Null)
    );
    assert_eq!(
        said["services"][0],
        json!({
            "service": "orders", "confirmed": null, "age_seconds": null, "too_old": false, "registry": 1,
            "instances": [{
                "id": "a\u{1b}[2J", "host": "10.0.0.1", "port": 80, "secure": false, "zone": "z1", "weight": 1,
                "status": "up", "metadata": {"version": "1.4"},
            }],
        })
    );
}

#[test]
fn a_snapshot_file_that_cannot_be_used_says_why_and_stays_where_it_is() {
    let (folder, path) = snapshot();
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (code, out, err) = run(&["snapshot", &path]);
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        err.strip_prefix(&format!("buttress: {path}: "))
            .unwrap()
            .to_owned()
    };
    let cut = refused(&good[..good.len() - 9]);
    assert!(cut.starts_with("cut off: expected "), "{cut}");
    let changed = refused(text.replace("10.0.0.1", "10.0.0.2").as_bytes());
    assert!(
        changed.starts_with("corrupted: expected the checksum"),
        "{changed}"
    );
    let other = refused(text.replacen("snapshot 1", "snapshot 2", 1).as_bytes());
    assert_eq!(
        other,
        "of another version: expected version 1, found \"2\"\n"
    );
    let another = refused(b"{}");
    assert!(
        another.starts_with("expected a snapshot, found"),
        "{another}"
    );

    fs::remove_file(&path).unwrap();
    let (code, _, err) = run(&["snapshot", &path]);
    assert_eq!(code, 2);
    assert!(
        err.contains("instances.snapshot: cannot be read: No such file"),
        "{err}"
    );
    let (code, _, err) = run(&["snapshot", &folder.path().display().to_string()]);
    assert_eq!(code, 2);
    assert!(err.contains("expected a file, found"), "{err}");
}

#[cfg(unix)]
#[test]
fn what_a_client_would_not_use_of_a_snapshot_file_is_marked() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_folder, path) = snapshot();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, out, _) = run(&["snapshot", &path]);
    assert_eq!(code, 0);
    assert!(out.contains("\n! a client would not use it: expected a file that its user alone can write, found mode 0666\n"), "{out}");

    // Confirmed in 1970, and later than any date can be written.
    for (file, said) in [
        (
            "buttress-snapshot 1 8802a3f3 26\nowner\t\nservice\torders\t0\t7\n",
            "confirmed 1970-01-01T00:00:07Z, ",
        ),
        (
            "buttress-snapshot 1 1528826e 45\nowner\t\nservice\torders\t0\t18446744073709551615\n",
            "confirmed at a time that cannot be by registry 1 ",
        ),
    ] {
        fs::write(&path, file).unwrap();
        let (code, out, _) = run(&["snapshot", &path]);
        assert_eq!(code, 1);
        assert!(out.contains(said), "{out}");
        let is_marked = out.contains("! a client would not use it: it is older than three days");
        assert_eq!(is_marked, said.contains("1970"), "{out}");
    }
}

#[test]
fn the_schemes_say_what_they_cannot_do() {
    for (url, said) in [
        ("zookeeper+https://h", "zookeeper is asked without TLS"),
        ("zookeeper://me@h", "`…@h`: the user has no password"),
        (
            "zookeeper://h?x=y",
            "`zookeeper://h`: after its ? goes base=…",
        ),
        ("zookeeper://", "write it as HOST:PORT"),
        ("kubernetes:", "KUBERNETES_SERVICE_HOST is not set"),
        ("kubernetes://me:s3cret@h", "`…@h`: it knows no users"),
        ("dns+https://10.0.0.1", "a name server is asked without TLS"),
        ("dns://h/{}.test", "a name server is an address"),
        ("dns:///orders.test", "must have one `{}`"),
        ("dns:///{}.test:x", "after the last : goes a port"),
        ("dns:///{}.test:0", "port 0 cannot be called"),
    ] {
        let mut command = buttress(&["resolve", url, "orders"]);
        command.env_remove("KUBERNETES_SERVICE_HOST");
        let (code, out, err) = ended(command.output().unwrap());
        assert_eq!((code, &*out), (2, ""), "{url}");
        assert!(err.contains(said) && !err.contains("s3cret"), "{err}");
    }
    let mut command = buttress(&["resolve", "kubernetes://10.0.0.1:6443", "orders"]);
    let (code, _, err) = ended(command.env("BUTTRESS_TOKEN", "t0ken").output().unwrap());
    assert_eq!(code, 2);
    assert!(
        err.contains("a token goes over TLS alone") && !err.contains("t0ken"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_zookeeper_is_watched() {
    let Some(address) = real("ZOOKEEPER_URL") else {
        return;
    };
    let zookeeper = ZooKeeper::new(&address).unwrap().base("/cli");
    let service = unique("orders");
    let here = Instance::new("a", "10.0.0.1", 80).zone("z1");
    let ttl = Duration::from_secs(60);
    zookeeper.register(&service, &here, ttl).await.unwrap();
    let url = format!("zookeeper://{address}?base=/cli");
    let watching = Watching::start(&["watch", &url, &service]);
    let watching = seen(watching, "+ a 10.0.0.1:80 zone=z1 weight=1 up: called").await;
    zookeeper.deregister(&service, &here).await.unwrap();
    seen(watching, "gone: held by the guard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_name_server_is_asked() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    let name = format!("_{service}._tcp");
    zone.change([
        format!("add {name} 1 SRV 0 5 80 {service}"),
        format!("add {service} 1 A 10.0.0.1"),
    ])
    .await;
    let server = zone.server;
    let asked = tokio::task::spawn_blocking(move || {
        for (url, weight) in [
            (format!("dns://{server}/_{{}}._tcp.buttress.test"), 5),
            (format!("dns://{server}/{{}}.buttress.test:80"), 1),
        ] {
            let (code, out, err) = run(&["resolve", &url, &service, "--json"]);
            assert_eq!((code, &*err), (0, ""));
            let said: Value = serde_json::from_str(&out).unwrap();
            let found = &said["instances"][0];
            assert_eq!(
                (&found["host"], &found["port"]),
                (&json!("10.0.0.1"), &json!(80))
            );
            assert_eq!(found["weight"], weight);
        }
    });
    asked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kubernetes_is_asked() {
    let Some(api) = Api::real() else { return };
    let service = unique("orders");
    api.put(&service, &service, json!([ready("a", 1)])).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, format!("{}\n", api.token)).unwrap();
    let url = api.url.replace("https://", "kubernetes+https://") + "?port=80";
    let ca = std::env::var("KUBERNETES_CA").unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let args = ["resolve", &url, &service, "--json", "--ca", &ca];
        let mut command = buttress(&args);
        command.env("BUTTRESS_TOKEN_FILE", &token);
        let (code, out, err) = ended(command.output().unwrap());
        assert_eq!((code, &*err), (0, ""));
        let said: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(said["instances"][0]["host"], "10.0.0.1");

        let (code, _, err) = run(&args);
        assert_eq!(code, 2);
        assert!(err.contains("401") || err.contains("the right to"), "{err}");
    });
    asked.await.unwrap();
}

/// Waits for a line with `part` in it.
async fn seen(mut watching: Watching, part: &'static str) -> Watching {
    let seen = tokio::task::spawn_blocking(move || {
        watching.until(part);
        watching
    });
    seen.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_consul_is_watched() {
    let Ok(url) = std::env::var("CONSUL_URL") else {
        println!("left out: CONSUL_URL is not set");
        return;
    };
    let consul = Consul::new(&url).unwrap();
    let service = format!("cli-{}", std::process::id());
    let here = Instance::new(service.clone() + "-1", "10.0.0.1", 80).zone("z1");
    let ttl = Duration::from_secs(60);
    consul.register(&service, &here, ttl).await.unwrap();
    let url = url.replace("http://", "consul://");
    let asked = service.clone();
    let mut watching = Watching::start(&["watch", &url, &asked]);
    let line = format!("+ {service}-1 10.0.0.1:80 zone=z1 weight=1 up: called");
    let wait = |mut watching: Watching, line: String| {
        tokio::task::spawn_blocking(move || {
            watching.until(&line);
            watching
        })
    };
    watching = wait(watching, line).await.unwrap();
    consul
        .renew(&service, &here, Status::OutOfService)
        .await
        .unwrap();
    let line = format!(
        "~ {service}-1 10.0.0.1:80 zone=z1 weight=1 out_of_service: not called: out of service"
    );
    watching = wait(watching, line).await.unwrap();
    consul.deregister(&service, &here).await.unwrap();
    wait(watching, format!("- {service}-1 ")).await.unwrap();
}

const PATIENCE: Duration = Duration::from_secs(30);
