//! The servers, how a session with them is opened, and what their errors mean.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zookeeper_client::{Acl, Acls, Client, Connector, Error, Permission, SessionState};

use crate::clock;
use crate::discovery::{ErrorKind, RegistryError};

/// The servers of an ensemble.
#[derive(Clone)]
pub(super) struct Ensemble {
    /// The registry's name.
    pub(super) name: Arc<str>,
    /// Separated by commas.
    servers: String,
    /// What the path in the servers' address has all others begin with: empty, or with a slash at its beginning only.
    pub(super) chroot: String,
    /// `USER:PASSWORD`.
    pub(super) user: Option<SecretString>,
    pub(super) connector: Connector,
}

impl Ensemble {
    pub(super) fn new(address: &str) -> Result<Self, RegistryError> {
        // Whatever is before an `@` may be a secret.
        if address.contains('@') {
            let message = "its address has an `@`: a user is given apart from it";
            return Err(wrong(message.into()));
        }
        let (servers, path) = split(address);
        let servers: Vec<_> = servers.split(',').map(str::trim).collect();
        if !servers.iter().all(|server| is_server(server)) {
            let message = format!(
                "its address is `{address}`; write it as HOST:PORT,HOST:PORT or HOST:PORT,HOST:PORT/CHROOT"
            );
            return Err(wrong(message));
        }
        let (servers, chroot) = (servers.join(","), joined("", path));
        Ok(Self {
            name: format!("zookeeper at {servers}{chroot}").into(),
            servers,
            chroot,
            user: None,
            connector: Client::connector(),
        })
    }

    /// Opens a session that lasts for `timeout` after the servers heard of it last.
    pub(super) async fn open(&self, timeout: Duration) -> Result<Client, RegistryError> {
        let timeout = timeout.clamp(SHORTEST_SESSION, LONGEST_SESSION);
        let mut connector = (self.connector.clone())
            .with_session_timeout(timeout)
            .with_connection_timeout(SILENCE)
            .with_fail_eagerly();
        if let Some(user) = &self.user {
            connector = connector.with_auth("digest", user.expose_secret().as_bytes());
        }
        tokio::select! {
            opened = connector.connect(&self.servers) => opened.map_err(|error| self.error(error)),
            () = clock::sleep(PATIENCE) => Err(RegistryError::new(
                self.name.clone(),
                ErrorKind::TimedOut,
                format!("no session within {PATIENCE:?}"),
            )),
        }
    }

    /// Waits for an answer in the session of `client`, but not for ever. What it says of a node is left to the caller.
    pub(super) async fn ask<T>(
        &self,
        client: &Client,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, RegistryError> {
        let answered = tokio::select! {
            biased;
            answered = answer => answered,
            () = clock::sleep(PATIENCE) => {
                if client.state() == SessionState::Disconnected {
                    return Err(self.error(Error::ConnectionLoss));
                }
                return Err(RegistryError::new(
                    self.name.clone(),
                    ErrorKind::TimedOut,
                    format!("no answer within {PATIENCE:?}"),
                ));
            }
        };
        match answered {
            Err(error) if !is_about_a_node(&error) => Err(self.error(error)),
            answered => Ok(answered),
        }
    }

    /// How the name of `service` is written below `root`: it may come from a URL's host, which is in lower case.
    pub(super) async fn spelling(
        &self,
        client: &Client,
        root: &str,
        service: &str,
    ) -> Result<String, RegistryError> {
        let names = match self.ask(client, client.list_children(at(root))).await? {
            Ok(names) => names,
            Err(Error::NoNode) => Vec::new(),
            Err(error) => return Err(self.error(error)),
        };
        let mut same = spellings(names, service);
        same.sort_by_key(|name| name != service);
        let name = same.into_iter().next();
        Ok(name.unwrap_or_else(|| service.to_owned()))
    }

    /// When a child of the node at `path` came or went last, or nothing where there is no such node.
    pub(super) async fn last_change(
        &self,
        client: &Client,
        path: &str,
    ) -> Result<Option<i64>, RegistryError> {
        let stat = self.ask(client, client.check_stat(path)).await?;
        let stat = stat.map_err(|error| self.error(error))?;
        Ok(stat.map(|stat| stat.pzxid))
    }

    /// Refuses what cannot be a node's name.
    pub(super) fn check_name(&self, name: &str) -> Result<(), RegistryError> {
        if !name.contains(['/', '\0']) && !matches!(name, "" | "." | "..") {
            return Ok(());
        }
        let message = format!("no node can have the name `{}`", name.escape_debug());
        Err(RegistryError::new(
            self.name.clone(),
            ErrorKind::Unsupported,
            message,
        ))
    }

    /// Who may do what with nodes made here: whoever has logged in owns them, and everybody may read.
    pub(super) fn acl(&self) -> Acls<'static> {
        const OWNED: &[Acl] = &[
            Acl::new_const(Permission::ALL, "auth", ""),
            Acl::new_const(Permission::READ, "world", "anyone"),
        ];
        match &self.user {
            Some(_) => Acls::new(OWNED),
            None => Acls::anyone_all(),
        }
    }

    pub(super) fn error(&self, error: Error) -> RegistryError {
        let (kind, message) = match &error {
            Error::NoHosts | Error::ConnectionLoss => (ErrorKind::Unreachable, "no connection"),
            Error::SessionExpired | Error::SessionMoved | Error::Timeout | Error::ClientClosed => {
                (ErrorKind::Unreachable, "the session has ended")
            }
            Error::NoAuth | Error::AuthFailed | Error::InvalidAcl => {
                (ErrorKind::Denied, "it did not let us")
            }
            Error::UnmarshalError { .. } => {
                (ErrorKind::Malformed, "its answer cannot be understood")
            }
            Error::BadArguments(_) => (ErrorKind::Unsupported, "it cannot be asked that"),
            Error::Custom(_) => (ErrorKind::Unreachable, "the exchange broke off"),
            _ => (ErrorKind::Failed, "it failed"),
        };
        RegistryError::new(self.name.clone(), kind, message).caused_by(error)
    }
}

/// Those of `names` that are `service` but for their case.
pub(super) fn spellings(mut names: Vec<String>, service: &str) -> Vec<String> {
    names.retain(|name| name.eq_ignore_ascii_case(service));
    names.sort();
    names
}

/// `path` as ZooKeeper has it where it is empty.
pub(super) fn at(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// `path` below `base`, without slashes too many.
pub(super) fn joined(base: &str, path: &str) -> String {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(base.to_owned(), |base, name| format!("{base}/{name}"))
}

/// The servers of `address`, and the path that follows them.
fn split(address: &str) -> (&str, &str) {
    let last = address.rfind(',').map_or(0, |at| at + 1);
    let place = address[last..].find("://").map_or(last, |at| last + at + 3);
    match address[place..].find('/') {
        Some(at) => address.split_at(place + at),
        None => (address, ""),
    }
}

fn is_server(server: &str) -> bool {
    let (scheme, place) = server.split_once("://").unwrap_or(("tcp", server));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !place.ends_with(']') => (host, port),
        _ => (place, "2181"),
    };
    let is_port = port.parse().is_ok_and(|port: u16| port != 0);
    matches!(scheme, "tcp" | "tcp+tls") && !host.is_empty() && !host.contains('/') && is_port
}

/// Whether `error` is an answer about a node, as opposed to none.
fn is_about_a_node(error: &Error) -> bool {
    use Error::{NoAuth, NoNode, NodeExists, NotEmpty, Unimplemented};
    matches!(
        error,
        NoAuth | NoNode | NodeExists | NotEmpty | Unimplemented
    )
}

fn wrong(message: String) -> RegistryError {
    RegistryError::new("zookeeper", ErrorKind::Unsupported, message)
}

/// After this long without a word from a server, another one is tried.
const SILENCE: Duration = Duration::from_secs(4);
/// How long a session may take to open, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shorter, and a server that is slow for a moment ends it.
const SHORTEST_SESSION: Duration = Duration::from_secs(2);
/// Servers allow much less: 40 s by default.
const LONGEST_SESSION: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_servers_and_a_path() {
        let table = [
            ("h", "h", ""),
            ("10.0.0.1:2181", "10.0.0.1:2181", ""),
            ("a:1, b:2", "a:1,b:2", ""),
            ("a:1,b:2/", "a:1,b:2", ""),
            ("a:1,b:2//team/x/", "a:1,b:2", "/team/x"),
            ("[::1]:1,[::2]/t", "[::1]:1,[::2]", "/t"),
            ("tcp+tls://a:1,tcp://b:2/t", "tcp+tls://a:1,tcp://b:2", "/t"),
        ];
        for (address, servers, chroot) in table {
            let ensemble = Ensemble::new(address).unwrap();
            assert_eq!((&*ensemble.servers, &*ensemble.chroot), (servers, chroot));
            assert_eq!(*ensemble.name, format!("zookeeper at {servers}{chroot}"));
        }
    }

    #[test]
    fn what_is_no_address_says_so_and_repeats_no_user() {
        for address in [
            "",
            ",",
            "a:1,",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:x",
            "/t",
            "a:1/t,b:2",
            "http://a:1",
        ] {
            let error = Ensemble::new(address).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{address}");
            assert!(error.message().contains("HOST:PORT"), "{error}");
        }
        let error = Ensemble::new("us3r:pa55@a:1").err().unwrap();
        assert!(!error.to_string().contains("pa55"), "{error}");
    }
}
