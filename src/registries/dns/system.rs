//! Which name servers there are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hickory_resolver::config::{ProtocolConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::Name;

/// Where it is written which name servers to ask.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Here.
    Given(Vec<SocketAddr>),
    /// In this file, where the system has one, and wherever else it keeps it.
    System(PathBuf),
}

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setup {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
}

impl Source {
    /// What is written there now. The system is asked where that holds up nobody.
    pub(super) async fn read(&self) -> Result<Setup, String> {
        let path = match self {
            Self::Given(servers) => {
                return Ok(Setup {
                    servers: servers.clone(),
                    search: Vec::new(),
                    ndots: 0,
                });
            }
            Self::System(path) => path.clone(),
        };
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        match read {
            Ok(Ok((config, options))) => Ok(setup(&config, &options)),
            Ok(Err(error)) => Err(format!("cannot read {shown}: {error}")),
            Err(_) => Err("the runtime ended".into()),
        }
    }
}

fn setup(config: &ResolverConfig, options: &ResolverOpts) -> Setup {
    let servers = config.name_servers().iter().flat_map(|server| {
        let mut connections = server.connections.iter();
        let udp = connections.find(|connection| connection.protocol == ProtocolConfig::Udp);
        udp.map(|udp| SocketAddr::new(server.ip, udp.port))
    });
    let mut search = config.search().to_vec();
    if search.is_empty() {
        search.extend(config.domain().cloned());
    }
    // A domain that is the root adds nothing to a name.
    search.retain(|domain| !domain.is_root());
    Setup {
        servers: servers.collect(),
        search,
        ndots: options.ndots,
    }
}

#[cfg(all(unix, not(any(target_os = "android", target_vendor = "apple"))))]
fn read(path: &Path) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    hickory_resolver::system_conf::parse_resolv_conf(std::fs::read(path)?)
}

#[cfg(not(all(unix, not(any(target_os = "android", target_vendor = "apple")))))]
fn read(_path: &Path) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    hickory_resolver::system_conf::read_system_conf()
}

#[cfg(test)]
#[cfg(all(unix, not(any(target_os = "android", target_vendor = "apple"))))]
mod tests {
    use super::*;

    async fn read(text: &str) -> Result<Setup, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, text).unwrap();
        Source::System(path).read().await
    }

    #[tokio::test]
    async fn resolv_conf_says_whom_to_ask_and_where_to_search() {
        let text = "nameserver 10.0.0.10\nnameserver ::1\nsearch a.test b.test.\noptions ndots:5\n";
        let setup = read(text).await.unwrap();
        let servers: Vec<SocketAddr> = ["10.0.0.10:53", "[::1]:53"]
            .map(|at| at.parse().unwrap())
            .into();
        assert_eq!(setup.servers, servers);
        let search: Vec<_> = setup.search.iter().map(Name::to_string).collect();
        assert_eq!(
            (search.join(" ").as_str(), setup.ndots),
            ("a.test b.test.", 5)
        );

        let setup = read("nameserver 10.0.0.10\ndomain c.test\nsearch .\n")
            .await
            .unwrap();
        assert_eq!(setup.search, []);
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_names_nobody_is_an_error_that_names_it() {
        let error = Source::System("/nowhere/resolv.conf".into()).read().await;
        assert!(
            error
                .unwrap_err()
                .contains("cannot read /nowhere/resolv.conf")
        );
        assert!(read("").await.unwrap_err().contains("no nameservers"));
    }
}
