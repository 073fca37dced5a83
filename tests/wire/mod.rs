//! A server that says, byte for byte, what a test wants it to, and remembers what it was asked.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Request {
    /// Method and path with query: `GET /v1/health/service/orders?index=7`.
    pub line: String,
    /// Lines in lower case as they came.
    pub head: String,
    pub body: String,
}

pub enum Reply {
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then nothing, for ever.
    Open(Vec<u8>),
    /// The same, until [`Server::end`].
    Until(Vec<u8>),
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    pub fn json(body: impl Into<String>) -> Self {
        Self::new("200 OK", &[], body)
    }

    pub fn status(status: &str, body: impl Into<String>) -> Self {
        Self::new(status, &[], body)
    }

    pub fn new(status: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Self {
        let body = body.into();
        let mut raw = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
        for (name, value) in headers {
            raw += &format!("{name}: {value}\r\n");
        }
        raw += &format!("content-length: {}\r\n\r\n{body}", body.len());
        Self::Raw(raw.into_bytes())
    }

    /// The same reply, broken off in the middle of its body.
    pub fn cut(self) -> Self {
        match self {
            Self::Raw(mut raw) => {
                raw.truncate(raw.len() - 1);
                Self::Raw(raw)
            }
            other => other,
        }
    }

    /// The beginning of an answer that goes on, with these lines of it.
    pub fn open(lines: &[&str]) -> Self {
        let mut raw = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
        for line in lines {
            raw += &format!("{line}\n");
        }
        Self::Open(raw.into_bytes())
    }
}

#[derive(Clone)]
pub struct Server {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Request>>>,
    ended: watch::Sender<bool>,
}

impl Server {
    /// Answers the nth request, from 0, with `script(n, request)`.
    pub async fn start(script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            asked: Arc::default(),
            ended: watch::Sender::new(false),
        };
        let (script, asked) = (Arc::new(script), server.asked.clone());
        let ended = server.ended.subscribe();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, script.clone(), asked.clone(), ended.clone()));
            }
        });
        server
    }

    /// Answers the nth request with the nth of `replies`, and hangs after the last.
    pub async fn script(replies: Vec<Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().map(Some).collect();
        let replies = Mutex::new(replies);
        Self::start(move |n, _| {
            let mut replies = replies.lock().unwrap();
            replies
                .get_mut(n)
                .and_then(Option::take)
                .unwrap_or(Reply::Hang)
        })
        .await
    }

    /// Ends the answers that go on until then.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked()
            .into_iter()
            .map(|request| request.line)
            .collect()
    }
}

async fn answer(
    mut stream: TcpStream,
    script: Arc<impl Fn(usize, &Request) -> Reply>,
    asked: Arc<Mutex<Vec<Request>>>,
    mut ended: watch::Receiver<bool>,
) {
    let mut bytes = Vec::new();
    let request = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1);
        let length = length.map_or(0, |text| text.lines().next().unwrap().parse().unwrap());
        if body.len() >= length {
            let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
            break Request {
                line: line.into(),
                head,
                body: body.into(),
            };
        }
    };
    let n = {
        let mut asked = asked.lock().unwrap();
        asked.push(request.clone());
        asked.len() - 1
    };
    match script(n, &request) {
        Reply::Raw(raw) => {
            let _ = stream.write_all(&raw).await;
            let _ = stream.shutdown().await;
            // Read on, or what was sent might be lost with the connection.
            while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
        }
        Reply::Open(raw) => {
            let _ = stream.write_all(&raw).await;
            std::future::pending().await
        }
        Reply::Until(raw) => {
            let _ = stream.write_all(&raw).await;
            let _ = ended.wait_for(|ended| *ended).await;
        }
        Reply::Hang => std::future::pending().await,
    }
}
