//! A network between a registry and its client that can be cut, or corrupt what it passes on.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes on what comes to it, as long as it is whole.
pub struct Proxy {
    pub url: String,
    is_whole: watch::Sender<bool>,
    corrupts: watch::Sender<bool>,
}

impl Proxy {
    /// In front of the server at `url`.
    pub async fn start(url: &str) -> Self {
        let (scheme, server) = url.split_once("://").unwrap();
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (is_whole, whole) = watch::channel(true);
        let (corrupts, corrupt) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let pass = pass(client, server.clone(), whole.clone(), corrupt.clone());
                tokio::spawn(pass);
            }
        });
        Self {
            url,
            is_whole,
            corrupts,
        }
    }

    /// Breaks off all connections; new ones are accepted, but not passed on before it is mended.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }

    /// From now on, or no longer, some bytes that the server sends come out wrong.
    pub fn corrupt(&self, corrupts: bool) {
        self.corrupts.send_replace(corrupts);
    }
}

async fn pass(
    mut client: TcpStream,
    server: String,
    mut whole: watch::Receiver<bool>,
    corrupt: watch::Receiver<bool>,
) {
    let _ = whole.wait_for(|whole| *whole).await;
    let Ok(mut server) = TcpStream::connect(server).await else {
        return; // It is down, which the client notices as well.
    };
    // What is small is passed on at once, as it was sent.
    for end in [&client, &server] {
        let _ = end.set_nodelay(true);
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let never = watch::channel(false).1;
    // Whoever ends, it is over: no protocol of a registry goes on in one direction.
    tokio::select! {
        () = copy(from_client, to_server, &never) => {}
        () = copy(from_server, to_client, &corrupt) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}

/// Passes on until an end. A corrupted byte has its highest bit turned: nothing that a registry says in plain text then
/// means something else, which no client could tell from the truth.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    corrupt: &watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if *corrupt.borrow() {
            for byte in bytes[..count].iter_mut().skip(count / 2).step_by(97) {
                *byte ^= 0x80;
            }
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
