//! How each registry is made of what its URL says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use buttress::Registry;
use buttress::discovery::RegistryError;
use buttress::registries::consul::Consul;
use buttress::registries::dns::Dns;
use buttress::registries::etcd::Etcd;
use buttress::registries::eureka::Eureka;
use buttress::registries::file::File;
use buttress::registries::kubernetes::Kubernetes;
use buttress::registries::zookeeper::ZooKeeper;

use super::place::Place;
use super::source::shown;

/// A registry, or what is wrong with where it is said to be.
pub(super) type Opened = Result<Arc<dyn Registry>, String>;

pub(super) fn consul(place: &Place) -> Opened {
    let consul = Consul::new(&place.urls()?).and_then(|consul| consul.client(place.client()));
    let consul = consul.map_err(told)?;
    let credentials = place.credentials;
    let token = credentials.token.as_ref();
    Ok(match token.or(credentials.consul_token.as_ref()) {
        Some(token) => Arc::new(consul.token(token.clone())),
        None => Arc::new(consul),
    })
}

pub(super) fn eureka(place: &Place) -> Opened {
    let eureka = Eureka::new(&place.urls()?).and_then(|eureka| eureka.client(place.client()));
    Ok(Arc::new(eureka.map_err(told)?.poll(POLL)))
}

/// Members separated by commas, then a prefix.
pub(super) fn etcd(place: &Place) -> Opened {
    let (at, login) = place.login()?;
    let (members, prefix) = at.split_once('/').unwrap_or((at, ""));
    let members: Vec<_> = (members.split(','))
        .map(|member| format!("{}://{member}", place.http()))
        .collect();
    let etcd = Etcd::new(&members.join(",")).and_then(|etcd| etcd.client(place.client()));
    let etcd = etcd.map_err(told)?.prefix(prefix);
    Ok(match login {
        Some((name, password)) => Arc::new(etcd.user(name, password)),
        None => Arc::new(etcd),
    })
}

/// Servers separated by commas, then the path that all others are below.
pub(super) fn zookeeper(place: &Place) -> Opened {
    if place.secure {
        return Err("zookeeper is asked without TLS here: write zookeeper://".to_owned());
    }
    let (at, login) = place.login()?;
    let (at, base) = place.option(at, "base")?;
    let mut zookeeper = ZooKeeper::new(at).map_err(told)?;
    if let Some(base) = base {
        zookeeper = zookeeper.base(&base);
    }
    Ok(match login {
        Some((name, password)) => Arc::new(zookeeper.user(&name, password)),
        None => Arc::new(zookeeper),
    })
}

/// An API server, or nothing in a pod, which is told of its own.
pub(super) fn kubernetes(place: &Place) -> Opened {
    let (at, port) = place.option(place.nobody()?, "port")?;
    let credentials = place.credentials;
    let mut kubernetes = match at {
        "" => Kubernetes::in_cluster(),
        _ => Kubernetes::new(&format!("{}://{at}", place.http())),
    };
    if !at.is_empty() || !place.ca.is_empty() {
        let client = place.client().http1_only();
        kubernetes = kubernetes.and_then(|kubernetes| kubernetes.client(client));
    }
    let mut kubernetes = kubernetes.map_err(told)?;
    if let Some(token) = &credentials.token {
        // It is all that somebody needs to be us.
        if !at.is_empty() && !place.secure {
            let message = "a token goes over TLS alone: write kubernetes+https://";
            return Err(format!("`{}`: {message}", shown(place.url)));
        }
        kubernetes = match &credentials.token_file {
            Some(path) => kubernetes.token_file(path),
            None => kubernetes.token(token.clone()),
        };
    }
    if let Some(port) = port {
        kubernetes = kubernetes.port(&port);
    }
    Ok(Arc::new(kubernetes))
}

/// Name servers separated by commas, or else the system's; then a name, with `{}` for the service; then a port, unless
/// the records say it.
pub(super) fn dns(place: &Place) -> Opened {
    let rest = place.nobody()?;
    let wrong = |what: &str| format!("`{}`: {what}", shown(place.url));
    if place.secure {
        return Err(wrong("a name server is asked without TLS: write dns://"));
    }
    let (servers, name) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, port) = match name.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (name, None),
    };
    let name = if name.is_empty() { "{}" } else { name };
    let dns = match port.map(str::parse) {
        Some(Ok(port)) => Dns::addresses(name, port),
        Some(Err(_)) => return Err(wrong("after the last : goes a port")),
        None => Dns::srv(name),
    };
    let dns = dns.map_err(told)?.poll(OFTEN, POLL);
    if servers.is_empty() {
        return Ok(Arc::new(dns));
    }
    let servers: Option<Vec<_>> = servers.split(',').map(name_server).collect();
    match servers {
        Some(servers) => Ok(Arc::new(dns.servers(servers))),
        None => Err(wrong("a name server is an address, such as 10.0.0.1:53")),
    }
}

/// An address of IPv4 or, in brackets, of IPv6, and a port if it is not the usual one.
fn name_server(text: &str) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = || bare.unwrap_or(text).parse::<IpAddr>().ok();
    text.parse().ok().or_else(|| Some((ip()?, 53).into()))
}

pub(super) fn file(place: &Place) -> Opened {
    if place.rest.is_empty() || place.secure {
        return Err("a file is written as file:PATH".to_owned());
    }
    Ok(Arc::new(File::new(place.rest)))
}

fn told(error: RegistryError) -> String {
    format!("{}: {}", error.registry(), error.message())
}

/// Somebody waits for it: more often than a client asks, be it that the answer holds for less or for longer.
const POLL: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(1);
