//! From records to instances.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::SRV;

use crate::discovery::Instance;

/// Which addresses of a host count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Those of IPv4; of a host that has none, those of IPv6.
    #[default]
    PreferV4,
    /// Those of IPv6; of a host that has none, those of IPv4.
    PreferV6,
    /// Those of IPv4 alone.
    V4,
    /// Those of IPv6 alone.
    V6,
    /// Both. A host that has both is two instances.
    Both,
}

impl Family {
    /// Those of `addresses` that count.
    pub(super) fn choose(self, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
        let has_v6 = addresses.iter().any(IpAddr::is_ipv6);
        addresses.retain(|address| match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::PreferV4 => address.is_ipv4() || !has_v4,
            Self::PreferV6 => address.is_ipv6() || !has_v6,
            Self::Both => true,
        });
        addresses
    }

    /// Whether, beside `addresses`, no others can count.
    pub(super) fn is_served_by(self, addresses: &[IpAddr]) -> bool {
        let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
        let has_v6 = addresses.iter().any(IpAddr::is_ipv6);
        match self {
            Self::V4 | Self::PreferV4 => has_v4,
            Self::V6 | Self::PreferV6 => has_v6,
            Self::Both => has_v4 && has_v6,
        }
    }
}

/// The instances at `addresses`, each once, in an order that does not depend on the server.
pub(super) fn of_addresses(addresses: Vec<IpAddr>, port: u16, secure: bool) -> Vec<Instance> {
    let found = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
    let found = found.map(|at| (at, instance(at, secure)));
    in_order(found.collect())
}

/// The instances of a service at the `addresses` of its targets, each once, in an order that does not depend on the
/// server.
///
/// Those of the lowest priority that has any are called by weight, and the others only if nobody else is left.
pub(super) fn of_services(
    services: &[SRV],
    addresses: &HashMap<Name, Vec<IpAddr>>,
    secure: bool,
) -> Vec<Instance> {
    let at = |service: &SRV| {
        let at = addresses.get(&service.target).into_iter().flatten();
        at.filter(|ip| !ip.is_unspecified())
    };
    let has_any = |service: &&SRV| service.port != 0 && at(service).next().is_some();
    let mut services: Vec<_> = services.iter().filter(has_any).collect();
    services.sort_by_key(|service| (service.priority, Reverse(service.weight), &service.target));
    let first = services.first().map(|service| service.priority);

    let mut found = BTreeMap::new();
    for service in services {
        // A weight of 0 is a very small share in RFC 2782, and none here.
        let weight = match Some(service.priority) == first {
            true => u32::from(service.weight).max(1),
            false => 0,
        };
        for ip in at(service) {
            let at = SocketAddr::new(*ip, service.port);
            let target = service.target.to_lowercase().to_string();
            found.entry(at).or_insert_with(|| {
                instance(at, secure)
                    .weight(weight)
                    .metadata("priority", service.priority.to_string())
                    .metadata("target", target.trim_end_matches('.'))
            });
        }
    }
    in_order(found)
}

fn instance(at: SocketAddr, secure: bool) -> Instance {
    Instance::new(at.to_string(), at.ip().to_string(), at.port()).secure(secure)
}

/// What no instance has is left out: blocklists answer with an address that is nobody's, and means this host if called.
fn in_order(found: BTreeMap<SocketAddr, Instance>) -> Vec<Instance> {
    let found = found
        .into_iter()
        .filter(|(at, _)| !at.ip().is_unspecified());
    found.map(|(_, instance)| instance).collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn described(instances: &[Instance]) -> Vec<(String, u32)> {
        let described = |i: &Instance| (format!("{}={i}", i.id), i.weight);
        instances.iter().map(described).collect()
    }

    #[test]
    fn addresses_are_instances_each_once_and_in_order() {
        let addresses = ips(&["10.0.0.9", "::1", "10.0.0.10", "10.0.0.9", "0.0.0.0", "::"]);
        let instances = of_addresses(addresses, 80, true);
        let expected = ["10.0.0.9:80", "10.0.0.10:80", "[::1]:80"];
        let expected = expected.map(|at| (format!("{at}={at}"), 1));
        assert_eq!(described(&instances), expected);
        assert!(instances.iter().all(|instance| instance.secure));
    }

    #[test]
    fn the_family_says_which_addresses_count_and_which_need_be_asked_for() {
        let (v4, v6) = (["10.0.0.1"], ["::1"]);
        let both = ["10.0.0.1", "::1"];
        for (family, of_v4, of_v6, of_both) in [
            (Family::PreferV4, (1, true), (1, false), (1, true)),
            (Family::PreferV6, (1, false), (1, true), (1, true)),
            (Family::V4, (1, true), (0, false), (1, true)),
            (Family::V6, (0, false), (1, true), (1, true)),
            (Family::Both, (1, false), (1, false), (2, true)),
        ] {
            for (addresses, expected) in [(&v4[..], of_v4), (&v6, of_v6), (&both, of_both)] {
                let addresses = ips(addresses);
                let served = family.is_served_by(&addresses);
                let chosen = family.choose(addresses);
                assert_eq!((chosen.len(), served), expected, "{family:?} of {chosen:?}");
            }
        }
    }

    #[test]
    fn the_lowest_priority_is_called_by_weight_and_the_others_only_if_it_is_gone() {
        let addresses = HashMap::from([
            (name("a.test."), ips(&["10.0.0.1"])),
            (name("b.test."), ips(&["10.0.0.2", "10.0.0.3"])),
            (name("c.test."), ips(&["10.0.0.4"])),
            (name("blocked.test."), ips(&["0.0.0.0"])),
        ]);
        let services = [
            SRV::new(20, 50, 80, name("c.test.")),
            SRV::new(10, 0, 80, name("a.test.")),
            SRV::new(10, 7, 81, name("b.test.")),
            SRV::new(5, 9, 80, name("nowhere.test.")),
            SRV::new(5, 9, 80, name("blocked.test.")),
            SRV::new(1, 9, 0, name("a.test.")),
        ];
        let instances = of_services(&services, &addresses, false);
        let expected = [
            ("10.0.0.1:80", 1),
            ("10.0.0.2:81", 7),
            ("10.0.0.3:81", 7),
            ("10.0.0.4:80", 0),
        ];
        let expected = expected.map(|(at, weight)| (format!("{at}={at}"), weight));
        assert_eq!(described(&instances), expected);
        assert_eq!(instances[1].metadata["target"], "b.test");
        assert_eq!(instances[1].metadata["priority"], "10");

        let left = of_services(&services[..1], &addresses, false);
        assert_eq!(described(&left), [("10.0.0.4:80=10.0.0.4:80".into(), 50)]);
    }

    #[test]
    fn of_two_records_for_one_address_the_one_called_first_counts() {
        let addresses = HashMap::from([
            (name("a.test."), ips(&["10.0.0.1"])),
            (name("b.test."), ips(&["10.0.0.1"])),
        ]);
        let services = [
            SRV::new(20, 50, 80, name("a.test.")),
            SRV::new(10, 5, 80, name("A.test.")),
            SRV::new(10, 6, 80, name("b.test.")),
        ];
        let instances = of_services(&services, &addresses, false);
        assert_eq!(
            described(&instances),
            [("10.0.0.1:80=10.0.0.1:80".into(), 6)]
        );
    }

    proptest! {
        #[test]
        fn the_order_of_the_records_changes_nothing(
            services in proptest::collection::vec((0..3_u16, 0..3_u16, 0..3_u16, 0..5_usize), 0..12),
            turn in any::<prop::sample::Index>(),
        ) {
            let targets = ["a.test.", "B.test.", "b.test.", "c.test.", "d.test."];
            let addresses = HashMap::from([
                (name("a.test."), ips(&["10.0.0.1", "10.0.0.2"])),
                (name("b.test."), ips(&["10.0.0.2"])),
                (name("c.test."), ips(&["10.0.0.3"])),
            ]);
            let mut services: Vec<_> = services
                .into_iter()
                .map(|(priority, weight, port, target)| SRV::new(priority, weight, port, name(targets[target])))
                .collect();
            let before = of_services(&services, &addresses, false);
            services.reverse();
            if !services.is_empty() {
                let by = turn.index(services.len());
                services.rotate_left(by);
            }
            prop_assert_eq!(of_services(&services, &addresses, false), before.clone());
            let mut ids: Vec<_> = before.iter().map(|instance| &instance.id).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), before.len());
        }
    }
}
