//! Questions to name servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Query};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::task::JoinSet;

use super::answer::{self, Answer, Fault};
use crate::clock;
use crate::discovery::ErrorKind;

/// Some name servers of which each knows what the others know. Nothing is cached here.
pub(super) struct Servers {
    servers: Vec<Server>,
    /// Who answered last is asked first.
    first: AtomicUsize,
}

/// One server. A pool of several would take the first error of any of them for the answer of all.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
}

/// Records of a name, and for how long they hold.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) records: Vec<RData>,
    pub(super) additional: Vec<Record>,
    pub(super) ttl: Duration,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr]) -> Result<Self, NetError> {
        let servers = addresses.iter().copied().map(Server::new);
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            first: AtomicUsize::new(0),
        })
    }

    /// The records of type `kind` of `name`, an absolute name, or of what it is an alias of.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<Records, Fault> {
        let mut name = name.clone();
        let mut least = Duration::MAX;
        for _ in 0..answer::ALIASES {
            match self.ask(&name, kind).await? {
                Answer::Records {
                    records,
                    additional,
                    ttl,
                } => {
                    return Ok(Records {
                        records,
                        additional,
                        ttl: ttl.min(least),
                    });
                }
                Answer::Alias { of, ttl } => {
                    name = of;
                    least = least.min(ttl);
                }
            }
        }
        Err(Fault::too_many_aliases())
    }

    /// Asks one server after the other until one answers: the next when one fails, or is silent for a moment.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Fault> {
        let count = self.servers.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut order = (0..count).map(|n| (first + n) % count);
        // Those under way end with the set, which goes with this future.
        let mut asked = JoinSet::new();
        let mut told = None;
        loop {
            if let Some(index) = order.next() {
                let (server, name) = (self.servers[index].clone(), name.clone());
                asked.spawn(async move { (index, server.ask(&name, kind).await) });
            }
            let done = tokio::select! {
                biased;
                done = asked.join_next() => done,
                () = clock::sleep(MOMENT), if order.len() > 0 => continue,
            };
            match done {
                Some(Ok((index, Ok(answer)))) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Some(Ok((_, Err(fault)))) => told = Some(telling(told, fault)),
                Some(Err(_)) => return Err(Fault::lost()),
                None => return Err(told.unwrap_or_else(nobody)),
            }
        }
    }
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self, NetError> {
        let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        let server = NameServerConfig::new(address.ip(), true, connections.into());
        let mut options = ResolverOpts::default();
        options.timeout = LIMIT;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let pool = NameServerPool::from_config([server], context, TokioRuntimeProvider::default());
        Ok(Self { address, pool })
    }

    /// Over UDP, with repetitions, and over TCP if the answer does not fit.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Fault> {
        let query = Query::query(name.clone(), kind);
        let lookup = self
            .pool
            .lookup(query.clone(), DnsRequestOptions::default());
        let answer = match lookup.first_answer().await {
            // Over UDP these are passed over; over TCP nobody has looked, and what is said of another name would be
            // that there is nothing of this one.
            Ok(response) if response.queries != [query.clone()] => Err(another_question()),
            Err(NetError::Dns(DnsError::NoRecordsFound(found))) if *found.query != query => {
                Err(another_question())
            }
            Ok(response) => Answer::read(response.into_message(), name, kind),
            Err(NetError::Dns(DnsError::NoRecordsFound(found))) => Answer::negative(&found),
            Err(error) => Err(fault(&error)),
        };
        answer.map_err(|fault| {
            let what = format!("{} {} (`{name}`, {kind})", self.address, fault.what);
            Fault::new(fault.kind, what)
        })
    }
}

fn fault(error: &NetError) -> Fault {
    let (kind, what) = match error {
        NetError::Dns(DnsError::ResponseCode(code)) => return Fault::code(*code),
        NetError::Timeout => {
            let what = format!("did not answer in {} s", LIMIT.as_secs());
            (ErrorKind::TimedOut, what)
        }
        NetError::Io(error) => (
            ErrorKind::Unreachable,
            format!("cannot be reached: {error}"),
        ),
        NetError::Truncated => {
            let what = "cut its answer short, over TCP too".into();
            (ErrorKind::Malformed, what)
        }
        NetError::Proto(error) => {
            let what = format!("answered what cannot be understood: {error}");
            (ErrorKind::Malformed, what)
        }
        NetError::ForeignClassRecord { .. } => {
            let what = format!("answered what was not asked: {error}");
            (ErrorKind::Malformed, what)
        }
        error => (ErrorKind::Failed, format!("could not be asked: {error}")),
    };
    Fault::new(kind, what)
}

/// The one of two failures that says more.
fn telling(before: Option<Fault>, now: Fault) -> Fault {
    match before {
        Some(before) if before.kind != ErrorKind::TimedOut => before,
        _ => now,
    }
}

fn another_question() -> Fault {
    Fault::new(ErrorKind::Malformed, "answered another question")
}

fn nobody() -> Fault {
    Fault::new(ErrorKind::Failed, "there is no name server to ask")
}

/// How long one server is given, be it over UDP, be it over TCP: as resolv.conf has it by default.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a server is silent until the next one is asked as well: longer than a recursion mostly takes, and short
/// enough that the first answer of a service need not wait for a server that is down.
const MOMENT: Duration = Duration::from_secs(1);
