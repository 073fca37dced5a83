//! What a real name server cannot be made to say, said by one that is made up.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Update};
use buttress::registries::dns::{Dns, Family};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use watching::message::{self, WRONGS, spoil};
use watching::{PATIENCE, Watching};

/// A question, and how it came.
struct Asked {
    /// Which one it is, from 0.
    n: usize,
    tcp: bool,
    name: String,
    kind: RecordType,
    /// An answer to it that says nothing yet.
    reply: Message,
}

/// What to send back; nothing is silence.
type Script = dyn Fn(Asked) -> Vec<Vec<u8>> + Send + Sync;

/// A name server, over UDP and TCP.
struct Server {
    address: SocketAddr,
    /// `A orders.test.`, and so on.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: impl Fn(Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let server = Self {
            address: tcp.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let script: Arc<Script> = Arc::new(script);
        let (asked, of_udp) = (Arc::clone(&server.asked), Arc::clone(&script));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                for reply in answer(&*of_udp, &asked, &buffer[..length], false) {
                    udp.send_to(&reply, from).await.unwrap();
                }
            }
        });
        let asked = Arc::clone(&server.asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        stream.read_exact(&mut question).await.unwrap();
                        for reply in answer(&*script, &asked, &question, true) {
                            let length = u16::try_from(reply.len()).unwrap();
                            stream.write_u16(length).await.unwrap();
                            stream.write_all(&reply).await.unwrap();
                        }
                    }
                });
            }
        });
        server
    }

    /// Answers every question with what `records` has of its name and type.
    async fn of(records: Vec<Record>) -> Self {
        Self::start(move |asked| vec![with(asked, &records)]).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn addresses(&self) -> Dns {
        dns(Dns::addresses("{}.test", 80).unwrap(), [self])
    }

    fn srv(&self) -> Dns {
        dns(Dns::srv("{}.test").unwrap(), [self])
    }
}

fn dns<'a>(dns: Dns, servers: impl IntoIterator<Item = &'a Server>) -> Dns {
    let servers = servers.into_iter().map(|server| server.address);
    dns.servers(servers)
        .poll(Duration::from_millis(100), Duration::from_secs(60))
}

fn answer(script: &Script, asked: &Mutex<Vec<String>>, question: &[u8], tcp: bool) -> Vec<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let (name, kind) = (query.name().to_string(), query.query_type());
    let n = {
        let mut asked = asked.lock().unwrap();
        asked.push(format!("{kind} {name}"));
        asked.len() - 1
    };
    let mut reply = Message::response(question.id, question.op_code);
    reply.add_query(query);
    script(Asked {
        n,
        tcp,
        name,
        kind,
        reply,
    })
}

/// The answer to `asked` out of `records`.
fn with(asked: Asked, records: &[Record]) -> Vec<u8> {
    let mut reply = asked.reply;
    let wanted = name(&asked.name);
    let is_wanted = |record: &&Record| record.name == wanted && record.record_type() == asked.kind;
    reply.add_answers(records.iter().filter(is_wanted).cloned());
    bytes(&reply)
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn coded(asked: Asked, code: ResponseCode) -> Vec<u8> {
    let mut reply = asked.reply;
    reply.metadata.response_code = code;
    bytes(&reply)
}

fn cut_short(asked: Asked) -> Vec<u8> {
    let mut reply = asked.reply;
    reply.metadata.truncation = true;
    reply.add_answer(a("orders.test.", "10.0.0.1"));
    bytes(&reply)
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 0, data)
}

fn a(owner: &str, ip: &str) -> Record {
    let data = match ip.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    record(owner, data)
}

fn alias(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

fn srv(target: &str) -> Record {
    let srv = SRV::new(1, 1, 80, name(target));
    record("orders.test.", RData::SRV(srv))
}

fn soa() -> Record {
    let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 2, 3, 4, 5);
    record("test.", RData::SOA(soa))
}

fn at(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(Instance::authority).collect()
}

#[tokio::test]
async fn the_order_of_an_answer_and_what_is_in_it_twice_are_no_change() {
    let server = Server::start(|asked| {
        let mut records: Vec<_> = ["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.1"]
            .map(|ip| a("orders.test.", ip))
            .into();
        records.rotate_left(asked.n % 4);
        vec![with(asked, &records)]
    })
    .await;
    let mut watching = Watching::start(&server.addresses(), "orders");
    let found = watching.instances().await;
    assert_eq!(at(&found), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    for _ in 0..5 {
        assert_eq!(watching.next().await, Update::Confirmed);
    }
}

#[tokio::test]
async fn a_ttl_of_nothing_makes_no_flood_and_a_dropped_watch_asks_no_more() {
    let server = Server::of(vec![a("orders.test.", "10.0.0.1")]).await;
    let watching = Watching::start(&server.addresses(), "orders");
    clock::sleep(Duration::from_millis(1050)).await;
    let asked = server.asked().len();
    assert!((3..=11).contains(&asked), "{asked}");
    watching.ended.abort();
    let _ = watching.ended.await;
    let asked = server.asked().len();
    clock::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test]
async fn what_is_not_the_answer_is_passed_over() {
    let server = Server::start(|asked| {
        let mut wrong_id = asked.reply.clone();
        wrong_id.metadata.id ^= 1;
        wrong_id.add_answer(a("orders.test.", "6.6.6.6"));
        let mut wrong_question = asked.reply.clone();
        wrong_question.queries[0].set_name(name("else.test."));
        wrong_question.add_answer(a("else.test.", "6.6.6.6"));
        let mut elsewhere = asked.reply.clone();
        elsewhere.add_answers([a("else.test.", "6.6.6.6"), a("orders.test.", "10.0.0.1")]);
        vec![
            vec![1],
            bytes(&wrong_id),
            bytes(&wrong_question),
            bytes(&elsewhere),
        ]
    })
    .await;
    let found = Watching::start(&server.addresses(), "orders")
        .instances()
        .await;
    assert_eq!(at(&found), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn whatever_can_be_seen_to_be_wrong_with_an_answer_makes_it_none() {
    // Over TCP too, where an answer to another question may have the right number and come from the right server.
    let mut watches = JoinSet::new();
    for (which, over_tcp) in (0..WRONGS).flat_map(|which| [(which, false), (which, true)]) {
        watches.spawn(async move {
            let server = Server::start(move |asked| {
                let is_wrong = asked.tcp == over_tcp;
                let records = [a("orders.test.", "10.0.0.1"), a("orders.test.", "10.0.0.2")];
                let mut answer = with(asked, &records);
                match is_wrong {
                    true => spoil(&mut answer, which),
                    false => message::cut_short(&mut answer),
                }
                vec![answer]
            })
            .await;
            let dns = server.addresses().family(Family::V4);
            let mut watching = Watching::start(&dns, "orders");
            let told = tokio::time::timeout(PATIENCE, watching.updates.recv()).await;
            let context = format!("{which}, over TCP: {over_tcp}");
            assert_eq!(told, Ok(None), "{context}");
            let ended = watching.ended.await.unwrap();
            let kinds = [ErrorKind::TimedOut, ErrorKind::Malformed];
            assert!(kinds.contains(&ended.kind()), "{context}: {ended}");
        });
    }
    watches.join_all().await;
}

#[tokio::test]
async fn failures_are_told_apart_and_none_of_them_is_an_empty_list() {
    type Reply = fn(Asked) -> Vec<Vec<u8>>;
    let table: [(Reply, ErrorKind, &str); 8] = [
        (
            |asked| vec![coded(asked, ResponseCode::ServFail)],
            ErrorKind::Failed,
            "answered SERVFAIL",
        ),
        (
            |asked| vec![coded(asked, ResponseCode::Refused)],
            ErrorKind::Denied,
            "answered REFUSED",
        ),
        (
            |asked| vec![coded(asked, ResponseCode::FormErr)],
            ErrorKind::Failed,
            "answered FORMERR",
        ),
        (
            |asked| vec![coded(asked, ResponseCode::Unknown(11))],
            ErrorKind::Failed,
            "answered code 11",
        ),
        (
            |asked| {
                let mut garbage = bytes(&asked.reply);
                garbage.truncate(2);
                garbage.extend([0xff; 40]);
                vec![garbage]
            },
            ErrorKind::Malformed,
            "cannot be understood",
        ),
        (
            |asked| {
                let mut referral = asked.reply;
                let ns = RData::NS(NS(name("ns.else.test.")));
                referral.add_authority(record("test.", ns));
                vec![bytes(&referral)]
            },
            ErrorKind::Failed,
            "refers to other servers",
        ),
        (
            |asked| {
                let mut circle = asked.reply;
                circle.add_answers([
                    alias("orders.test.", "b.test."),
                    alias("b.test.", "orders.test."),
                ]);
                vec![bytes(&circle)]
            },
            ErrorKind::Malformed,
            "a circle",
        ),
        (
            // Each answer leads to another question.
            |asked| {
                let mut on = asked.reply;
                on.add_answer(alias(&asked.name, &format!("{}.test.", asked.n)));
                vec![bytes(&on)]
            },
            ErrorKind::Malformed,
            "told of more than 8 aliases",
        ),
    ];
    for (reply, kind, said) in table {
        let server = Server::start(reply).await;
        let mut watching = Watching::start(&server.addresses(), "orders");
        assert_eq!(watching.updates.recv().await, None, "{said}");
        let error = watching.error().await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(said), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_told_apart_from_failure_by_either_of_its_signs() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let server = Server::start(move |asked| {
            let mut nothing = asked.reply;
            nothing.metadata.response_code = code;
            nothing.add_authority(soa());
            vec![bytes(&nothing)]
        })
        .await;
        for dns in [server.addresses(), server.srv()] {
            assert_eq!(Watching::start(&dns, "orders").instances().await, []);
        }
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up_in_time() {
    let server = Server::start(|_| vec![]).await;
    let began = clock::now();
    let error = Watching::start(&server.addresses(), "orders").error().await;
    let took = clock::now() - began;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let limits = Duration::from_secs(4)..Duration::from_secs(9);
    assert!(limits.contains(&took), "{took:?}");
    let asked = server.asked().len();
    assert!((2..=4).contains(&asked), "{asked} datagrams");
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails_or_is_silent_and_then_kept() {
    let good = Server::of(vec![a("orders.test.", "10.0.0.1")]).await;
    let failing = Server::start(|asked| vec![coded(asked, ResponseCode::ServFail)]).await;
    let silent = Server::start(|_| vec![]).await;
    // One that is waited for takes a second, and one that is waited for to the end takes five.
    for (bad, times, most) in [(&failing, 4, 3_000), (&silent, 1, 4_000)] {
        let began = clock::now();
        let addresses = Dns::addresses("{}.test", 80).unwrap();
        let servers = std::iter::repeat_n(bad, times).chain([&good]);
        let dns = dns(addresses, servers).family(Family::V4);
        let mut watching = Watching::start(&dns, "orders");
        assert_eq!(at(&watching.instances().await), ["10.0.0.1:80"]);
        let took = clock::now() - began;
        assert!(took < Duration::from_millis(most), "{took:?}");
        let asked = bad.asked().len();
        for _ in 0..3 {
            assert_eq!(watching.next().await, Update::Confirmed);
        }
        assert_eq!(bad.asked().len(), asked);
    }
    let all_bad = Dns::addresses("{}.test", 80).unwrap();
    let all_bad = dns(all_bad, [&silent, &failing]);
    let error = Watching::start(&all_bad, "orders").error().await;
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_asked_for_again_over_tcp() {
    let server = Server::start(|asked| {
        let mut reply = asked.reply;
        let most = if asked.tcp { 100 } else { 5 };
        reply.metadata.truncation = !asked.tcp;
        for n in 0..most {
            reply.add_answer(a("orders.test.", &format!("10.0.0.{}", n + 1)));
        }
        vec![bytes(&reply)]
    })
    .await;
    let found = Watching::start(&server.addresses(), "orders")
        .instances()
        .await;
    assert_eq!(found.len(), 100);
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_no_shrinking() {
    type Reply = fn(Asked) -> Vec<Vec<u8>>;
    let over_tcp: [(Reply, ErrorKind); 3] = [
        (|asked| vec![cut_short(asked)], ErrorKind::Malformed),
        (
            |asked| vec![coded(asked, ResponseCode::Refused)],
            ErrorKind::Denied,
        ),
        (|_| vec![], ErrorKind::TimedOut),
    ];
    for (reply, kind) in over_tcp {
        let server = Server::start(move |asked| match asked.tcp {
            true => reply(asked),
            false => vec![cut_short(asked)],
        })
        .await;
        let mut watching = Watching::start(&server.addresses(), "orders");
        assert_eq!(watching.updates.recv().await, None);
        let error = watching.error().await;
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn an_alias_whose_target_is_not_in_the_answer_is_asked_for() {
    let server = Server::start(|asked| {
        let mut reply = asked.reply;
        match (&*asked.name, asked.kind) {
            ("orders.test.", _) => reply.add_answer(alias("orders.test.", "b.else.")),
            ("b.else.", RecordType::SRV) => {
                let srv = SRV::new(1, 1, 81, name("c.test."));
                reply.add_answer(record("b.else.", RData::SRV(srv)))
            }
            (_, RecordType::A) => reply.add_answer(a(&asked.name, "10.0.0.1")),
            _ => &mut reply,
        };
        vec![bytes(&reply)]
    })
    .await;
    for (dns, port) in [(server.addresses(), 80), (server.srv(), 81)] {
        let found = Watching::start(&dns, "orders").instances().await;
        assert_eq!(at(&found), [format!("10.0.0.1:{port}")]);
    }
}

#[tokio::test]
async fn targets_whose_addresses_came_along_are_not_asked_for() {
    let server = Server::start(|asked| {
        let mut reply = asked.reply;
        match asked.kind {
            RecordType::SRV => {
                reply.add_answers([srv("a.test."), srv("b.test."), srv("c.test.")]);
                reply.add_additionals([a("A.test.", "10.0.0.1"), a("b.test.", "::2")]);
            }
            RecordType::A if asked.name == "c.test." => {
                reply.add_answer(a("c.test.", "10.0.0.3"));
            }
            _ => {}
        }
        vec![bytes(&reply)]
    })
    .await;
    let found = Watching::start(&server.srv(), "orders").instances().await;
    assert_eq!(at(&found), ["10.0.0.1:80", "10.0.0.3:80"]);
    // Of b, there could be an address that is preferred.
    let mut asked = server.asked();
    asked[1..].sort();
    assert_eq!(
        asked,
        ["SRV orders.test.", "A b.test.", "A c.test.", "AAAA b.test."]
    );

    let v6 = server.srv().family(Family::V6);
    let found = Watching::start(&v6, "orders").instances().await;
    assert_eq!(at(&found), ["[::2]:80"]);
}

#[tokio::test]
async fn a_target_without_addresses_is_left_out_and_one_that_cannot_be_asked_for_stops_all() {
    for (code, expected) in [
        (ResponseCode::NXDomain, Ok(1)),
        (ResponseCode::ServFail, Err(ErrorKind::Failed)),
    ] {
        let server = Server::start(move |asked| match &*asked.name {
            "b.test." => vec![coded(asked, code)],
            _ => {
                let records = [srv("a.test."), srv("b.test."), a("a.test.", "10.0.0.1")];
                vec![with(asked, &records)]
            }
        })
        .await;
        let mut watching = Watching::start(&server.srv(), "orders");
        match expected {
            Ok(count) => assert_eq!(watching.instances().await.len(), count),
            Err(kind) => {
                assert_eq!(watching.updates.recv().await, None);
                assert_eq!(watching.error().await.kind(), kind);
            }
        }
    }
}

#[tokio::test]
async fn a_failure_after_an_answer_ends_the_watch_and_takes_nothing_back() {
    let failing = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&failing);
    let server = Server::start(move |asked| match switch.load(Ordering::Relaxed) {
        0 => vec![with(asked, &[a("orders.test.", "10.0.0.1")])],
        _ => vec![coded(asked, ResponseCode::ServFail)],
    })
    .await;
    let mut watching = Watching::start(&server.addresses(), "orders");
    assert_eq!(watching.instances().await.len(), 1);
    failing.store(1, Ordering::Relaxed);
    while let Some(update) = watching.updates.recv().await {
        assert_eq!(update, Update::Confirmed);
    }
    assert_eq!(watching.error().await.kind(), ErrorKind::Failed);
}

#[tokio::test]
async fn a_service_that_makes_no_name_is_a_mistake_to_be_put_right() {
    let server = Server::of(vec![]).await;
    for service in ["", "a b", "a..b"] {
        let error = Watching::start(&server.addresses(), service).error().await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}
