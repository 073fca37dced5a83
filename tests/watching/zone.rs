//! A zone of a real name server, changed by dynamic update (RFC 2136) with `knsupdate`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use buttress::discovery::{
    BoxFuture, ErrorKind, Instance, Registry, RegistryError, Renewal, Status, Updates,
};
use buttress::registries::dns::Dns;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::real;

/// The zone `buttress.test` of the server of `DNS_URL`.
#[derive(Clone)]
pub struct Zone {
    pub server: SocketAddr,
}

impl Zone {
    pub fn real() -> Option<Self> {
        let url = real("DNS_URL")?;
        let server = url.trim_start_matches("dns://").parse();
        let server = server.expect("DNS_URL must be dns://ADDRESS:PORT");
        Some(Self { server })
    }

    /// Makes all of `changes` at once: `add NAME TTL TYPE DATA`, `del NAME`, with names relative to the zone.
    pub async fn change(&self, changes: impl IntoIterator<Item = impl AsRef<str>>) {
        self.try_change(changes).await.unwrap();
    }

    async fn try_change(
        &self,
        changes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), String> {
        let (ip, port) = (self.server.ip(), self.server.port());
        let mut script =
            format!("server {ip} {port}\nzone buttress.test.\norigin buttress.test.\n");
        for change in changes {
            script += &format!("{}\n", change.as_ref());
        }
        script += "send\n";
        let mut command = Command::new("knsupdate");
        let mut running = command
            .args(["-t", "2", "-r", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("needs knsupdate, which Debian has in the package knot-dnsutils");
        let mut stdin = running.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        let done = running.wait_with_output().await.unwrap();
        match done.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }
}

/// A zone with the instances of services as SRV records, written as the operator of a zone would: DNS itself knows no
/// registration.
pub struct Operated {
    pub zone: Zone,
    dns: Dns,
}

impl Operated {
    pub fn new(zone: Zone) -> Self {
        let dns = Dns::srv("_{}._tcp.buttress.test").unwrap();
        let dns = dns.servers([zone.server]);
        let dns = dns.poll(Duration::from_millis(200), Duration::from_secs(1));
        Self { zone, dns }
    }

    /// The instance that is found where one at that address is entered.
    pub fn instance(host: &str, port: u16) -> Instance {
        let instance = Instance::new("", host, port);
        let target = format!("{}.buttress.test", label(&instance));
        let id = instance.authority();
        Instance::new(id, host, port)
            .metadata("priority", "1")
            .metadata("target", target)
    }

    fn enter(&self, changes: Vec<String>) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (zone, name) = (self.zone.clone(), self.name().to_owned());
        Box::pin(async move {
            let done = zone.try_change(changes).await;
            done.map_err(|message| RegistryError::new(name, ErrorKind::Unreachable, message))
        })
    }
}

impl Registry for Operated {
    fn name(&self) -> &str {
        self.dns.name()
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        self.dns.watch(service, updates)
    }

    fn register(
        &self,
        service: &str,
        instance: &Instance,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let (target, kind) = (
            label(instance),
            if instance.host.contains(':') {
                "AAAA"
            } else {
                "A"
            },
        );
        self.enter(vec![
            drop_record(service, instance),
            format!("del {target} {kind}"),
            format!("add {target} 1 {kind} {}", instance.host),
            format!(
                "add _{service}._tcp 1 SRV 1 {} {} {target}",
                instance.weight, instance.port
            ),
        ])
    }

    fn renew(
        &self,
        service: &str,
        _instance: &Instance,
        _status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let done = self.enter(vec![format!("prereq yxrrset _{service}._tcp SRV")]);
        Box::pin(async move {
            match done.await {
                Ok(()) => Ok(Renewal::Renewed),
                Err(error) if error.message().contains("NXRRSET") => Ok(Renewal::Unknown),
                Err(error) => Err(error),
            }
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        self.enter(vec![drop_record(service, instance)])
    }
}

/// Takes out the record of `instance`, whatever its weight is by now: only known ones are used.
fn drop_record(service: &str, instance: &Instance) -> String {
    let record = |weight| {
        let (port, target) = (instance.port, label(instance));
        format!("del _{service}._tcp SRV 1 {weight} {port} {target}")
    };
    (1..10).map(record).collect::<Vec<_>>().join("\n")
}

fn label(instance: &Instance) -> String {
    instance
        .authority()
        .replace(['.', ':', '[', ']'], "-")
        .trim_matches('-')
        .into()
}
