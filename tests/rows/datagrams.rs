//! The network before a name server: datagrams, and connections for what does not fit into one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buttress::clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use super::Fault;
use crate::watching::message::{cut_short, spoil};

/// A way to a name server, on which faults happen to whole messages.
pub struct Datagrams {
    /// The server as it is seen from the client's end.
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
}

struct Way {
    server: SocketAddr,
    fault: watch::Receiver<Fault>,
    /// Whether no answer fits into a datagram.
    is_narrow: bool,
    spoilt: AtomicUsize,
}

impl Datagrams {
    /// A way to `server`; if it is narrow, one where all answers are cut short but those over TCP.
    pub async fn to(server: SocketAddr, is_narrow: bool) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let (fault, happens) = watch::channel(Fault::None);
        let way = Arc::new(Way {
            server,
            fault: happens,
            is_narrow,
            spoilt: AtomicUsize::new(0),
        });
        tokio::spawn(datagrams(Arc::clone(&way), Arc::new(udp)));
        tokio::spawn(async move {
            loop {
                let (client, _) = tcp.accept().await.unwrap();
                let way = Arc::clone(&way);
                tokio::spawn(async move { way.connection(client).await });
            }
        });
        Self { address, fault }
    }

    /// See [`Row::fault`](super::Row::fault).
    pub fn fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn datagrams(way: Arc<Way>, socket: Arc<UdpSocket>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let (way, socket) = (Arc::clone(&way), Arc::clone(&socket));
        let question = buffer[..length].to_vec();
        tokio::spawn(async move {
            // What is lost is lost without a word.
            if let Ok(Some(answer)) = way.datagram(&question).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

impl Way {
    async fn datagram(&self, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if *self.fault.borrow() == Fault::Cut {
            return Ok(None);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(self.server).await?;
        socket.send(question).await?;
        let mut answer = vec![0; 4096];
        let Ok(length) = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await else {
            return Ok(None);
        };
        answer.truncate(length?);
        if self.is_narrow {
            cut_short(&mut answer);
        }
        Ok(self.carry(answer).await)
    }

    async fn connection(self: Arc<Self>, client: TcpStream) {
        let mut fault = self.fault.clone();
        if *fault.borrow() == Fault::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(self.server).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (carrying, mut carried) = mpsc::unbounded_channel();
        let read = async {
            while let Ok(length) = from_server.read_u16().await {
                let mut answer = vec![0; usize::from(length)];
                if from_server.read_exact(&mut answer).await.is_err() {
                    return;
                }
                // One that is late makes no other late.
                let (way, carrying) = (Arc::clone(&self), carrying.clone());
                tokio::spawn(async move { carrying.send((length, way.carry(answer).await)) });
            }
        };
        let write = async {
            while let Some((length, Some(answer))) = carried.recv().await {
                let message = [&length.to_be_bytes()[..], &answer].concat();
                let sent = to_client.write_all(&message).await;
                if sent.is_err() || answer.len() < usize::from(length) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            () = read => {}
            () = write => {}
            _ = fault.wait_for(|fault| *fault == Fault::Cut) => {}
        }
    }

    /// What becomes of an answer on its way.
    async fn carry(&self, mut answer: Vec<u8>) -> Option<Vec<u8>> {
        let fault = *self.fault.borrow();
        match fault {
            Fault::None => {}
            Fault::Cut => return None,
            Fault::Slow(late) => clock::sleep(late).await,
            Fault::Partial(bytes) => answer.truncate(usize::try_from(bytes).unwrap()),
            Fault::Garbage => spoil(&mut answer, self.spoilt.fetch_add(1, Ordering::Relaxed)),
        }
        Some(answer)
    }
}

/// How long an answer is waited for: longer than any client does.
const PATIENCE: Duration = Duration::from_secs(10);
