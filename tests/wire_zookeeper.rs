//! What may come over the wire in place of ZooKeeper, and what is made of it.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::clock;
use buttress::discovery::{ErrorKind, Instance, Registry, RegistryError, Status};
use buttress::registries::zookeeper::ZooKeeper;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;
use watching::Watching;

/// What a server says to a request.
#[derive(Clone)]
enum Reply {
    Bytes(Vec<u8>),
    Silence,
    /// The end of the connection.
    End,
}

type Asked = Arc<Mutex<Vec<u8>>>;

/// A server that answers the nth request of a connection, from 0, with `script(n, request)`. The first asks for a
/// session.
async fn server(
    script: impl Fn(usize, &[u8]) -> Reply + Send + Sync + 'static,
) -> (ZooKeeper, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (script, asked) = (Arc::new(script), Asked::default());
    let told = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (script, told) = (script.clone(), told.clone());
            tokio::spawn(async move { serve(stream, &*script, &told).await });
        }
    });
    (ZooKeeper::new(&address).unwrap(), asked)
}

async fn serve(
    mut stream: TcpStream,
    script: &impl Fn(usize, &[u8]) -> Reply,
    told: &Asked,
) -> io::Result<()> {
    for n in 0.. {
        let length = stream.read_i32().await?;
        let mut request = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut request).await?;
        told.lock().unwrap().extend_from_slice(&request);
        match script(n, &request) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Silence => {}
            Reply::End => break,
        }
    }
    Ok(())
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

/// A session of 4 s.
fn session() -> Reply {
    let numbers = [
        &0_i32.to_be_bytes()[..],
        &4000_i32.to_be_bytes(),
        &7_i64.to_be_bytes(),
    ];
    let password = [&16_i32.to_be_bytes()[..], &[0; 16], &[0]];
    Reply::Bytes(frame(&[numbers.concat(), password.concat()].concat()))
}

/// An answer to `request` that has nothing but this error in it.
fn error(request: &[u8], code: i32) -> Reply {
    let header = [&request[..4], &1_i64.to_be_bytes(), &code.to_be_bytes()];
    Reply::Bytes(frame(&header.concat()))
}

/// Whether it is what keeps a session alive, or logs it in.
fn is_upkeep(request: &[u8]) -> bool {
    matches!(request[..4], [0xff, 0xff, 0xff, 0xfe | 0xfc])
}

/// Does all that a registry can do, none of which may succeed or take long.
async fn use_all(zookeeper: &ZooKeeper) -> Vec<RegistryError> {
    let instance = Instance::new("a", "10.0.0.1", 80);
    let ttl = Duration::from_secs(4);
    let began = clock::now();
    let (watched, registered, left) = tokio::join!(
        Watching::start(zookeeper, "orders").error(),
        zookeeper.register("orders", &instance, ttl),
        zookeeper.deregister("orders", &instance),
    );
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(20), "{took:?}");
    vec![watched, registered.unwrap_err(), left.unwrap_err()]
}

#[tokio::test]
async fn what_gives_no_session_is_an_error_and_never_a_long_wait() {
    let replies = [
        Reply::End,
        Reply::Silence,
        Reply::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Reply::Bytes(vec![0xff; 64]),
        Reply::Bytes(vec![0x00; 64]),
        Reply::Bytes(frame(&[])),
        Reply::Bytes(frame(&[0; 8])),
        Reply::Bytes([&i32::MAX.to_be_bytes()[..], &[1; 64]].concat()),
    ];
    let (nobody, _) = server(|_, _| Reply::End).await;
    let nowhere = ["127.0.0.1:1", "nowhere.invalid"].map(|a| ZooKeeper::new(a).unwrap());
    let mut zookeepers = vec![nobody];
    zookeepers.extend(nowhere);
    for reply in replies {
        zookeepers.push(server(move |_, _| reply.clone()).await.0);
    }
    // Side by side, since each may take its time.
    let all = zookeepers
        .into_iter()
        .map(|zookeeper| tokio::spawn(async move { use_all(&zookeeper).await }));
    for errors in all.collect::<Vec<_>>() {
        for error in errors.await.unwrap() {
            use ErrorKind::{Malformed, TimedOut, Unreachable};
            let kinds = [Malformed, TimedOut, Unreachable];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}

#[tokio::test]
async fn nonsense_in_a_session_is_an_error_and_never_a_long_wait() {
    let replies = [
        Reply::End,
        Reply::Silence,
        Reply::Bytes(vec![0xff; 64]),
        Reply::Bytes(vec![0x00; 64]),
        Reply::Bytes(frame(&[0; 8])),
        // An answer to nothing that was asked.
        error(&99_i32.to_be_bytes(), 0),
        // An event of a kind that does not exist.
        error(&(-1_i32).to_be_bytes(), 0),
    ];
    let mut all = Vec::new();
    for reply in replies {
        let (zookeeper, _) = server(move |n, request| match n {
            0 => session(),
            _ if is_upkeep(request) => error(request, 0),
            _ => reply.clone(),
        })
        .await;
        all.push(tokio::spawn(async move { use_all(&zookeeper).await }));
    }
    // An answer with nothing in it, an unknown error.
    for code in [0, -4711] {
        let (zookeeper, _) = server(move |n, request| match n {
            0 => session(),
            _ if is_upkeep(request) => error(request, 0),
            _ => error(request, code),
        })
        .await;
        all.push(tokio::spawn(async move { use_all(&zookeeper).await }));
    }
    for errors in all {
        errors.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_a_clear_denial() {
    // Not authorised for a node; authentication failed.
    for code in [-102, -115] {
        let (zookeeper, _) = server(move |n, request| match n {
            0 => session(),
            _ if is_upkeep(request) && code == -102 => error(request, 0),
            _ => error(request, code),
        })
        .await;
        let zookeeper = zookeeper.user("us3r", "pa55");
        for error in use_all(&zookeeper).await {
            assert_eq!(error.kind(), ErrorKind::Denied, "{code}: {error:?}");
        }
    }
}

/// Everything that is logged, at every level, by whatever crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_password_is_sent_and_shown_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _guard = subscriber.finish().set_default();

    let (zookeeper, asked) = server(|n, request| match n {
        0 => session(),
        _ if is_upkeep(request) => error(request, 0),
        _ => error(request, -102),
    })
    .await;
    let zookeeper = zookeeper.user("us3r", "  pa55w0rd\n");
    let mut shown = format!("{zookeeper:?} {zookeeper:#?} {}", zookeeper.name());
    for error in use_all(&zookeeper).await {
        shown += &format!("{error:?} {} ", error.message());
    }
    let instance = Instance::new("a", "10.0.0.1", 80);
    let renewal = zookeeper.renew("orders", &instance, Status::Up).await;
    shown += &format!("{renewal:?}");

    let sent = asked.lock().unwrap().clone();
    let sent = String::from_utf8_lossy(&sent);
    assert!(sent.contains("us3r:pa55w0rd"), "it was sent");
    let logged = log.0.lock().unwrap().clone();
    let logged = String::from_utf8_lossy(&logged);
    assert!(logged.contains("zookeeper_client"), "the client was heard");
    assert!(!shown.contains("pa55w0rd"), "{shown}");
    assert!(!logged.contains("pa55w0rd"), "{logged}");
}
