use std::fmt;
use std::num::NonZeroU16;

use super::wire;

/// Which port of an instance to call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// The only one, or the one of a usual name.
    Any,
    Named(String),
    Numbered(u16),
}

/// A port that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) secure: bool,
}

impl Wanted {
    /// A number, or else a name.
    pub(super) fn new(port: &str) -> Self {
        match port.parse::<NonZeroU16>() {
            Ok(number) => Self::Numbered(number.get()),
            Err(_) => Self::Named(port.to_owned()),
        }
    }

    /// The one among `ports` that is wanted.
    pub(super) fn find(&self, ports: &[wire::Port]) -> Option<Port> {
        let tcp = || ports.iter().filter(|port| port.is_tcp());
        let named = |name: &str| tcp().find(|port| port.name() == name)?.chosen();
        match self {
            Self::Named(name) => named(name),
            // A slice without ports, or with one that has no number, is open at all of them.
            Self::Numbered(number) => {
                let asked = Port {
                    number: *number,
                    secure: false,
                };
                let found = tcp().filter_map(wire::Port::chosen);
                let found = found.into_iter().find(|port| port.number == *number);
                let is_open = ports.is_empty() || tcp().any(|port| port.port.is_none());
                found.or_else(|| is_open.then_some(asked))
            }
            Self::Any => {
                let mut all = tcp();
                match (all.next(), all.next()) {
                    (Some(only), None) => only.chosen(),
                    _ => USUAL.into_iter().find_map(named),
                }
            }
        }
    }
}

impl wire::Port {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|name| name == "TCP")
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn chosen(&self) -> Option<Port> {
        let number = u16::try_from(self.port?).ok().filter(|&port| port != 0)?;
        let secure = match self.app_protocol.as_deref() {
            Some(protocol) => SECURE
                .iter()
                .any(|name| protocol.eq_ignore_ascii_case(name)),
            None => self.name() == "https" || self.name().starts_with("https-"),
        };
        Some(Port { number, secure })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("only port, nor one named http, https or grpc"),
            Self::Named(name) => write!(f, "TCP port named `{name}`"),
            Self::Numbered(number) => write!(f, "TCP port {number}"),
        }
    }
}

impl fmt::Display for wire::Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.port) {
            ("", None) => f.write_str("any"),
            ("", Some(number)) => write!(f, "{number}"),
            (name, None) => f.write_str(name),
            (name, Some(number)) => write!(f, "{name} {number}"),
        }
    }
}

/// Of several ports, whose names say that calls go there: not to `metrics` or `admin`.
const USUAL: [&str; 3] = ["http", "https", "grpc"];
/// Of the protocols that an `appProtocol` may name, those over TLS.
const SECURE: [&str; 2] = ["https", "kubernetes.io/wss"];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn find(wanted: &Wanted, ports: Value) -> Option<(u16, bool)> {
        let ports: Vec<wire::Port> = serde_json::from_value(ports).unwrap();
        let found = wanted.find(&ports);
        found.map(|port| (port.number, port.secure))
    }

    #[test]
    fn a_port_is_found_by_name_by_number_or_as_the_only_one() {
        let two = json!([
            {"name": "metrics", "port": 9090, "protocol": "TCP"},
            {"name": "http", "port": 8080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]);
        let odd = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
        for (wanted, ports, found) in [
            (Wanted::Any, json!([{"name": "", "port": 80}]), Some(80)),
            (Wanted::Any, json!([{"name": "x", "port": 80}]), Some(80)),
            (Wanted::Any, two.clone(), Some(8080)),
            (Wanted::Any, odd, None),
            (Wanted::Any, json!([]), None),
            (Wanted::Any, json!([{"name": "x"}]), None),
            (Wanted::new("metrics"), two.clone(), Some(9090)),
            (Wanted::new("dns"), two.clone(), None),
            (Wanted::new("nothing"), two.clone(), None),
            (Wanted::new("9090"), two.clone(), Some(9090)),
            (Wanted::new("53"), two.clone(), None),
            (Wanted::new("1"), two, None),
            (Wanted::new("7"), json!([]), Some(7)),
            (Wanted::new("0"), json!([]), None),
            (
                Wanted::new("7"),
                json!([{"name": "", "port": null}]),
                Some(7),
            ),
            (Wanted::new("x"), json!([{"name": "x", "port": 0}]), None),
            (Wanted::new("x"), json!([{"name": "x", "port": -1}]), None),
            (
                Wanted::new("x"),
                json!([{"name": "x", "port": 65536}]),
                None,
            ),
        ] {
            let number = find(&wanted, ports.clone()).map(|(number, _)| number);
            assert_eq!(number, found, "{wanted:?} of {ports}");
        }
    }

    #[test]
    fn its_protocol_says_whether_it_speaks_tls_and_else_its_name() {
        for (name, protocol, secure) in [
            ("http", None, false),
            ("https", None, true),
            ("https-web", None, true),
            ("https", Some("http"), false),
            ("web", Some("HTTPS"), true),
            ("web", Some("kubernetes.io/wss"), true),
            ("web", Some("kubernetes.io/h2c"), false),
        ] {
            let ports = json!([{"name": name, "port": 443, "appProtocol": protocol}]);
            assert_eq!(
                find(&Wanted::Any, ports),
                Some((443, secure)),
                "{name} {protocol:?}"
            );
        }
    }
}
