//! A network between a registry and its client that can be cut.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes on what comes to it, as long as it is whole.
pub struct Proxy {
    pub url: String,
    is_whole: watch::Sender<bool>,
}

impl Proxy {
    /// In front of the server at `url`.
    pub async fn start(url: &str) -> Self {
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (is_whole, whole) = watch::channel(true);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass(client, server.clone(), whole.clone()));
            }
        });
        Self { url, is_whole }
    }

    /// Breaks off all connections; new ones are accepted, but not passed on before it is mended.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

async fn pass(mut client: TcpStream, server: String, mut whole: watch::Receiver<bool>) {
    let _ = whole.wait_for(|whole| *whole).await;
    let mut server = TcpStream::connect(server).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
