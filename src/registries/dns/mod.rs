//! Discovery through DNS: addresses, or SRV records. See the [guide](crate::docs::registries::dns).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use buttress::Resolver;
//! use buttress::registries::dns::Dns;
//!
//! // A headless service of Kubernetes; the name servers are those of the system.
//! let dns = Dns::srv("_http._tcp.{}.shop.svc.cluster.local.")?;
//! let orders = Resolver::new(dns).watch("orders").resolved().await?;
//! println!("{} instances of orders", orders.instances().len());
//! # Ok(())
//! # }
//! ```
//!
//! DNS knows no registration: instances are entered by whoever runs the zone. The feature needs Rust 1.88.

mod answer;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod instances;
mod name;
mod round;
mod servers;
mod system;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::instances::Family;
use self::name::Template;
use self::round::{Found, Round};
use self::servers::Servers;
use self::system::{Setup, Source};
use crate::algo::Rng;
use crate::clock;
use crate::discovery::{BoxFuture, ErrorKind, Registry, RegistryError, Update, Updates};
use crate::rng::ThreadRng;

/// Name servers, and how the instances of a service are written there. A cheap clone asks the same ones.
#[derive(Clone, Debug)]
pub struct Dns {
    name: Arc<str>,
    template: Template,
    source: Source,
    round: Round,
    shortest: Duration,
    longest: Duration,
}

impl Dns {
    /// Each address of a name is an instance, at this `port`. The `template` has `{}` where the name of the service
    /// goes: `{}.shop.example.org`. One that ends with a dot is absolute; for others the system's search domains are
    /// tried too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if `template` does not have `{}` once or makes no DNS name, or `port` is 0.
    pub fn addresses(template: &str, port: u16) -> Result<Self, RegistryError> {
        if port == 0 {
            return Err(unsupported("port 0 cannot be called"));
        }
        Self::new(template, Some(port))
    }

    /// Each SRV record of a name is an instance: its target, or several if that has several addresses, at its port, of
    /// its weight. The `template` is as that of [`addresses`](Self::addresses): `_http._tcp.{}.shop.example.org`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if `template` does not have `{}` once or makes no DNS name.
    pub fn srv(template: &str) -> Result<Self, RegistryError> {
        Self::new(template, None)
    }

    fn new(template: &str, port: Option<u16>) -> Result<Self, RegistryError> {
        Ok(Self {
            name: "dns of the system".into(),
            template: Template::new(template).map_err(unsupported)?,
            source: Source::System(RESOLV_CONF.into()),
            round: Round {
                port,
                family: Family::default(),
                secure: false,
            },
            shortest: SHORTEST,
            longest: LONGEST,
        })
    }

    /// Asks these servers, the first of them first, over UDP and TCP; all names are absolute then. Default: the
    /// system's, which are looked up again each time.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let servers: Vec<_> = servers.into_iter().collect();
        assert!(!servers.is_empty(), "a name server must be given");
        let shown: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
        self.name = format!("dns at {}", shown.join(", ")).into();
        self.source = Source::Given(servers);
        self
    }

    /// Which addresses of a host count. Default [`Family::PreferV4`].
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.round.family = family;
        self
    }

    /// Whether the instances speak TLS, which DNS does not say. Default no.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.round.secure = secure;
        self
    }

    /// How soon to ask again: when the answer's time to live is over, but no sooner than `shortest` and no later than
    /// `longest`, and up to a tenth later by chance. Default 5 s and 60 s.
    ///
    /// # Panics
    ///
    /// If `shortest` is below 100 ms or above `longest`.
    #[must_use]
    #[track_caller]
    pub fn poll(mut self, shortest: Duration, longest: Duration) -> Self {
        assert!(
            shortest >= SOONEST,
            "a question every {shortest:?} is more than a name server bears"
        );
        assert!(
            shortest <= longest,
            "the shortest wait, {shortest:?}, is longer than the longest, {longest:?}"
        );
        (self.shortest, self.longest) = (shortest, longest);
        self
    }

    async fn follow(&self, service: &str, updates: &Updates) -> Result<Infallible, RegistryError> {
        let name = self.template.name(service);
        let name = name.map_err(|what| self.error(ErrorKind::Unsupported, what))?;
        let mut asked = None;
        let mut known = None;
        loop {
            let (setup, servers) = self.servers_now(asked).await?;
            let names = name::candidates(&name, &setup.search, setup.ndots);
            let round = self.round.look(&servers, &names);
            let Ok(found) = tokio::time::timeout(PATIENCE, round).await else {
                let what = format!("no full answer in {} s", PATIENCE.as_secs());
                return Err(self.error(ErrorKind::TimedOut, what));
            };
            let Found {
                instances,
                authoritative,
                ttl,
            } = found.map_err(|fault| self.error(fault.kind, fault.what))?;
            asked = Some((setup, servers));
            let update = Update::Instances {
                instances,
                authoritative,
            };
            if known.as_ref() == Some(&update) {
                updates.confirmed().await;
            } else {
                updates.send(update.clone()).await;
                known = Some(update);
            }
            clock::sleep(self.wait(ttl, &mut ThreadRng)).await;
        }
    }

    /// Whom to ask now, after `before`. While a file is replaced, what it said before still holds.
    async fn servers_now(
        &self,
        before: Option<(Setup, Arc<Servers>)>,
    ) -> Result<(Setup, Arc<Servers>), RegistryError> {
        match (self.source.read().await, before) {
            (Err(_), Some(before)) => Ok(before),
            (Err(what), None) => Err(self.error(ErrorKind::Unreachable, what)),
            (Ok(setup), Some(before)) if before.0 == setup => Ok(before),
            (Ok(setup), _) => match Servers::new(&setup.servers) {
                Ok(servers) => Ok((setup, Arc::new(servers))),
                Err(error) => Err(self.error(ErrorKind::Failed, error.to_string())),
            },
        }
    }

    /// How long to wait after an answer of that `ttl`. Never less, lest a cache in between gives the same again with
    /// what is left of it.
    fn wait(&self, ttl: Duration, rng: &mut impl Rng) -> Duration {
        let wait = ttl.clamp(self.shortest, self.longest);
        wait.saturating_add(wait.mul_f64(rng.unit() / 10.0))
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> RegistryError {
        RegistryError::new(Arc::clone(&self.name), kind, message)
    }
}

impl Registry for Dns {
    fn name(&self) -> &str {
        &self.name
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (dns, service) = (self.clone(), service.to_owned());
        Box::pin(async move {
            match dns.follow(&service, &updates).await {
                Err(error) => error,
                Ok(never) => match never {},
            }
        })
    }
}

fn unsupported(message: impl Into<String>) -> RegistryError {
    RegistryError::new("dns", ErrorKind::Unsupported, message)
}

/// Where systems with a file of that kind have it.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The time to live that Kubernetes gives its records. One of 0 s, as Consul gives, must not make a flood of questions.
const SHORTEST: Duration = Duration::from_secs(5);
/// A new instance is wanted within a minute, whatever time to live was written into the zone once and forgotten.
const LONGEST: Duration = Duration::from_secs(60);
const SOONEST: Duration = Duration::from_millis(100);
/// For all questions of a round together.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn the_next_question_follows_the_ttl_within_bounds_and_never_before_it_is_over() {
        rng::seed(7);
        let dns = Dns::srv("{}.test").unwrap();
        for (ttl, least) in [(0, 5), (4, 5), (20, 20), (60, 60), (86_400, 60)] {
            let least = Duration::from_secs(least);
            let waits = (0..100).map(|_| dns.wait(Duration::from_secs(ttl), &mut ThreadRng));
            let waits: Vec<_> = waits.collect();
            assert!(
                waits
                    .iter()
                    .all(|wait| (least..=least.mul_f64(1.1)).contains(wait))
            );
            assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
        }
    }

    #[tokio::test]
    async fn servers_are_looked_up_again_and_what_was_known_holds_while_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut dns = Dns::srv("{}.test").unwrap();
        dns.source = Source::System(path.clone());

        assert!(dns.servers_now(None).await.is_err());
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let first = dns.servers_now(None).await.unwrap();
        let same = dns.servers_now(Some(first.clone())).await.unwrap();
        assert!(Arc::ptr_eq(&first.1, &same.1));

        std::fs::write(&path, "").unwrap();
        let held = dns.servers_now(Some(first.clone())).await.unwrap();
        assert!(Arc::ptr_eq(&first.1, &held.1));
        std::fs::write(&path, "nameserver 10.0.0.2\n").unwrap();
        let next = dns.servers_now(Some(held)).await.unwrap();
        assert!(!Arc::ptr_eq(&first.1, &next.1));
        assert_eq!(next.0.servers, ["10.0.0.2:53".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_is_refused_where_it_is_written() {
        let unsupported = |dns: Result<Dns, RegistryError>| dns.unwrap_err().kind();
        assert_eq!(
            unsupported(Dns::addresses("{}.test", 0)),
            ErrorKind::Unsupported
        );
        assert_eq!(unsupported(Dns::srv("orders.test")), ErrorKind::Unsupported);
        let dns = Dns::srv("{}.test").unwrap();
        let nobody = dns.clone();
        assert!(std::panic::catch_unwind(|| nobody.servers([])).is_err());
        for (shortest, longest) in [(0, 60), (61, 60)] {
            let dns = dns.clone();
            let poll = || dns.poll(Duration::from_secs(shortest), Duration::from_secs(longest));
            assert!(std::panic::catch_unwind(poll).is_err());
        }
    }
}
