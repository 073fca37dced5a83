//! The zone of the real name server of `DNS_URL`, changed as its operator would, with the services in it as SRV records.

use std::collections::BTreeMap;
use std::time::Duration;

use buttress::discovery::Instance;
use buttress::registries::dns::Dns;

use super::datagrams::Datagrams;
use super::{Fault, ours};
use crate::watching::zone::Zone;

/// Asked over UDP, and over TCP where an answer does not fit.
pub struct Asked<const OVER_TCP: bool> {
    zone: Zone,
    way: Datagrams,
}

pub type Row = Asked<false>;

impl<const OVER_TCP: bool> super::Row for Asked<OVER_TCP> {
    type Registry = Dns;
    const NAME: &str = "dns";
    // The time to live, a tenth of it, and the questions.
    const INTERVAL: Duration = Duration::from_millis(1000 + 100 + 100);
    // What is down refuses nothing over UDP: the wait for the next question, and the limit of an answer.
    const SILENCE: Duration = Duration::from_millis(1100 + 5000);
    const REGISTERS: bool = false;
    const KEEPS: bool = true;

    async fn start() -> Option<Self> {
        let zone = Zone::real()?;
        let way = Datagrams::to(zone.server, OVER_TCP).await;
        Some(Self { zone, way })
    }

    fn registry(&self) -> Dns {
        let dns = ours(Dns::srv("_{}._tcp.buttress.test")).servers([self.way.address]);
        dns.poll(Duration::from_millis(200), Duration::from_secs(1))
    }

    async fn denied() -> Option<Dns> {
        let zone = Zone::real()?;
        // Of which it has nothing to say, not even that there is nothing.
        Some(ours(Dns::srv("_{}._tcp.elsewhere.test")).servers([zone.server]))
    }

    async fn fault(&self, fault: Fault) -> bool {
        self.way.fault(fault);
        true
    }

    // At once, so that the record that it had is not missed meanwhile.
    async fn write(&self, service: &str, instance: &Instance) {
        let (name, target) = (name(service), label(instance));
        let is_its = |record: &Record| record.id() == instance.id;
        let outdated = self.records(service).await.into_iter().filter(is_its);
        let mut changes: Vec<_> = outdated.map(|record| record.removal(&name)).collect();
        let Instance {
            host, port, weight, ..
        } = instance;
        changes.push(format!("add {target} 1 A {host}"));
        changes.push(format!("add {name} 1 SRV 1 {weight} {port} {target}"));
        self.zone.change(changes).await;
    }

    async fn remove(&self, service: &str, id: &str) {
        let is_its = |record: &Record| record.id() == id;
        let outdated = self.records(service).await.into_iter().filter(is_its);
        let changes = outdated.map(|record| record.removal(&name(service)));
        self.zone.change(changes).await;
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let records = self.records(service).await.into_iter();
        records.map(|record| (record.id(), record.weight)).collect()
    }

    // All at once: who forgets one after the other is seen to do so.
    async fn forget(&self, service: &str) {
        self.zone.change([format!("del {}", name(service))]).await;
    }

    fn told(instance: Instance) -> Instance {
        let target = format!("{}.buttress.test", label(&instance));
        let told = Instance::new(instance.authority(), &*instance.host, instance.port);
        told.weight(instance.weight)
            .metadata("priority", "1")
            .metadata("target", target)
    }
}

impl<const OVER_TCP: bool> Asked<OVER_TCP> {
    async fn records(&self, service: &str) -> Vec<Record> {
        let records = self.zone.list(&name(service), "SRV").await;
        records.iter().map(|text| Record::read(text)).collect()
    }
}

/// An SRV record of ours.
struct Record {
    weight: u32,
    port: u16,
    /// `10-0-0-1-80.buttress.test.`
    target: String,
}

impl Record {
    fn read(text: &str) -> Self {
        let mut words = text.split(' ').skip(1);
        let mut word = || words.next().unwrap();
        Self {
            weight: word().parse().unwrap(),
            port: word().parse().unwrap(),
            target: word().to_owned(),
        }
    }

    /// The id of the instance that it is about.
    fn id(&self) -> String {
        let (label, _) = self.target.split_once('.').unwrap();
        let (ip, port) = label.rsplit_once('-').unwrap();
        format!("{}:{port}", ip.replace('-', "."))
    }

    fn removal(&self, name: &str) -> String {
        let Self {
            weight,
            port,
            target,
        } = self;
        format!("del {name} SRV 1 {weight} {port} {target}")
    }
}

/// The name of a service's records in the zone.
fn name(service: &str) -> String {
    format!("_{service}._tcp")
}

/// The name in the zone of the target at the address of `instance`, which is one of IPv4.
fn label(instance: &Instance) -> String {
    instance.authority().replace(['.', ':'], "-")
}
