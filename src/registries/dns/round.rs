//! All the questions that it takes to know the instances of a service.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;

use super::answer::{self, Fault};
use super::instances::{self, Family};
use super::servers::{Records, Servers};
use crate::discovery::Instance;

/// How to find the instances that a name stands for.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// The port of the instances; without it, the name has SRV records.
    pub(super) port: Option<u16>,
    pub(super) family: Family,
    pub(super) secure: bool,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) instances: Vec<Instance>,
    /// Whether it is said that there is no instance, rather than nothing said.
    pub(super) authoritative: bool,
    /// For how long it holds.
    pub(super) ttl: Duration,
}

/// Addresses, and for how long they hold.
pub(super) struct Addresses {
    pub(super) ips: Vec<IpAddr>,
    ttl: Duration,
}

impl Round {
    /// What the first of `names` that stands for anything stands for. A failure is never taken for nothing: a name that
    /// cannot be asked for does not give way to the next, nor a target to the others.
    pub(super) async fn look(
        &self,
        servers: &Arc<Servers>,
        names: &[Name],
    ) -> Result<Found, Fault> {
        let mut ttl = Duration::MAX;
        for name in names {
            let found = match self.port {
                Some(port) => {
                    let Addresses { ips, ttl } = self.addresses(servers, name).await?;
                    let instances = instances::of_addresses(ips, port, self.secure);
                    Found {
                        instances,
                        authoritative: false,
                        ttl,
                    }
                }
                None => self.services(servers, name).await?,
            };
            if found.authoritative || !found.instances.is_empty() {
                return Ok(found);
            }
            ttl = ttl.min(found.ttl);
        }
        Ok(Found {
            instances: Vec::new(),
            authoritative: false,
            ttl,
        })
    }

    async fn addresses(&self, servers: &Servers, name: &Name) -> Result<Addresses, Fault> {
        let v4 = addresses(servers, name, RecordType::A);
        let v6 = addresses(servers, name, RecordType::AAAA);
        match self.family {
            Family::V4 => v4.await,
            Family::V6 => v6.await,
            Family::PreferV4 => Ok(v4.await?.or(v6).await?),
            Family::PreferV6 => Ok(v6.await?.or(v4).await?),
            Family::Both => {
                let (v4, v6) = tokio::join!(v4, v6);
                Ok(v4?.and(v6?))
            }
        }
    }

    async fn services(&self, servers: &Arc<Servers>, name: &Name) -> Result<Found, Fault> {
        let Records {
            records,
            additional,
            mut ttl,
        } = servers.records(name, RecordType::SRV).await?;
        let services: Vec<_> = records.into_iter().filter_map(srv).collect();
        // RFC 2782: this service is decidedly not there.
        let authoritative = !services.is_empty() && services.iter().all(|s| s.target.is_root());
        let targets = services.iter().map(|service| &service.target);
        let targets: HashSet<_> = targets.filter(|target| !target.is_root()).collect();

        let mut found = HashMap::new();
        let mut open = Vec::new();
        for target in targets {
            let known = told(&additional, target);
            if self.family.is_served_by(&known.ips) {
                ttl = ttl.min(known.ttl);
                found.insert(target.clone(), self.family.choose(known.ips));
            } else {
                open.push(target.clone());
            }
        }
        let mut asked = JoinSet::new();
        let mut open = open.into_iter();
        loop {
            for target in open.by_ref().take(AT_ONCE - asked.len()) {
                let (round, servers) = (self.clone(), Arc::clone(servers));
                asked.spawn(async move {
                    let addresses = round.addresses(&servers, &target).await;
                    (target, addresses)
                });
            }
            let Some(done) = asked.join_next().await else {
                break;
            };
            let (target, addresses) = done.map_err(|_| Fault::lost())?;
            let Addresses { ips, ttl: held } = addresses?;
            ttl = ttl.min(held);
            found.insert(target, ips);
        }
        Ok(Found {
            instances: instances::of_services(&services, &found, self.secure),
            authoritative,
            ttl,
        })
    }
}

impl Addresses {
    /// These, or if there is none, the others.
    async fn or(self, others: impl Future<Output = Result<Self, Fault>>) -> Result<Self, Fault> {
        match self.ips.is_empty() {
            true => others.await,
            false => Ok(self),
        }
    }

    /// These and the others. That there is none is no reason to ask for the rest sooner.
    fn and(mut self, others: Self) -> Self {
        self.ttl = match (self.ips.is_empty(), others.ips.is_empty()) {
            (true, false) => others.ttl,
            (false, true) => self.ttl,
            _ => self.ttl.min(others.ttl),
        };
        self.ips.extend(others.ips);
        self
    }
}

async fn addresses(servers: &Servers, name: &Name, kind: RecordType) -> Result<Addresses, Fault> {
    let Records { records, ttl, .. } = servers.records(name, kind).await?;
    let ips = records.iter().filter_map(answer::address).collect();
    Ok(Addresses { ips, ttl })
}

/// The addresses of `target` that came with an answer.
pub(super) fn told(additional: &[Record], target: &Name) -> Addresses {
    let mut told = Addresses {
        ips: Vec::new(),
        ttl: Duration::MAX,
    };
    for record in additional.iter().filter(|record| record.name == *target) {
        if let Some(ip) = answer::address(&record.data) {
            told.ips.push(ip);
            told.ttl = told.ttl.min(answer::seconds(record.ttl));
        }
    }
    told
}

pub(super) fn srv(data: RData) -> Option<SRV> {
    match data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    }
}

/// How many targets are asked for at once, where their addresses do not come with the answer: a fleet of a hundred is
/// done in a few round trips, and no server takes it for an attack.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use tokio::net::UdpSocket;

    use super::*;
    use crate::discovery::ErrorKind;

    /// A server that knows nothing of names with `none`, fails for those with `fails`, and has an address for others.
    async fn servers() -> Arc<Servers> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let mut reply = Message::response(question.id, question.op_code);
                match query.name().to_string() {
                    name if name.contains("none") => {
                        reply.metadata.response_code = ResponseCode::NXDomain;
                    }
                    name if name.contains("fails") => {
                        reply.metadata.response_code = ResponseCode::ServFail;
                    }
                    name => {
                        let ip = A::new(10, 0, 0, u8::try_from(name.len()).unwrap());
                        let data = RData::A(ip);
                        reply.add_answer(Record::from_rdata(query.name().clone(), 7, data));
                    }
                }
                reply.add_query(query);
                let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
            }
        });
        Arc::new(Servers::new(&[address]).unwrap())
    }

    #[tokio::test]
    async fn the_first_name_that_stands_for_anything_is_taken_unless_one_before_fails() {
        let servers = servers().await;
        let round = Round {
            port: Some(80),
            family: Family::default(),
            secure: false,
        };
        for (names, expected) in [
            (&["a.", "bb."][..], Ok("10.0.0.2:80")),
            (&["none.", "bb.", "a."], Ok("10.0.0.3:80")),
            (&["none.", "none.a."], Ok("")),
            (&["a.", "fails."], Ok("10.0.0.2:80")),
            (&["none.", "fails.", "a."], Err(ErrorKind::Failed)),
        ] {
            let names: Vec<_> = names.iter().map(|n| Name::from_str(n).unwrap()).collect();
            let found = round.look(&servers, &names).await;
            let found = found.map(|found| {
                let at: Vec<_> = found.instances.iter().map(Instance::authority).collect();
                at.join(" ")
            });
            let found = found.as_deref().map_err(|fault| fault.kind);
            assert_eq!(found, expected, "{names:?}");
        }
    }
}
