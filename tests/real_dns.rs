//! Against the real name server of `DNS_URL`, whose zone `buttress.test` is changed meanwhile.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod watching;

use std::time::Duration;

use buttress::clock;
use buttress::discovery::{Instance, Resolver, Update};
use buttress::registries::dns::{Dns, Family};
use watching::zone::Zone;
use watching::{Watching, unique};

fn addresses(zone: &Zone) -> Dns {
    often(Dns::addresses("{}.buttress.test", 8080).unwrap(), zone)
}

fn srv(zone: &Zone) -> Dns {
    often(Dns::srv("_{}._tcp.buttress.test").unwrap(), zone)
}

fn often(dns: Dns, zone: &Zone) -> Dns {
    let dns = dns.servers([zone.server]);
    dns.poll(Duration::from_millis(100), Duration::from_secs(60))
}

fn at(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(Instance::authority).collect()
}

#[tokio::test]
async fn the_case_of_a_services_name_does_not_matter() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    zone.change([
        format!("add {service} 1 A 10.0.0.1"),
        format!("add _{service}._tcp 1 SRV 1 1 80 {service}"),
    ])
    .await;
    let service = service.to_uppercase();
    for (dns, port) in [(addresses(&zone), 8080), (srv(&zone), 80)] {
        let found = Watching::start(&dns, &service).instances().await;
        assert_eq!(at(&found), [format!("10.0.0.1:{port}")]);
    }
}

#[tokio::test]
async fn addresses_come_and_go_in_an_order_that_is_ours() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    let mut watching = Watching::start(&addresses(&zone), &service);
    assert_eq!(watching.instances().await, []);
    for (change, expected) in [
        ("add NAME 1 A 10.0.0.2", &["10.0.0.2:8080"][..]),
        ("add NAME 1 A 10.0.0.1", &["10.0.0.1:8080", "10.0.0.2:8080"]),
        // There is an address of IPv4, and those are preferred.
        (
            "add NAME 1 AAAA ::1\ndel NAME A 10.0.0.2",
            &["10.0.0.1:8080"],
        ),
        ("del NAME A", &["[::1]:8080"]),
        ("del NAME", &[]),
    ] {
        zone.change([change.replace("NAME", &service)]).await;
        let found = watching.until(|found| at(found) == expected).await;
        assert!(
            found
                .iter()
                .all(|instance| instance.id == instance.authority())
        );
    }
}

#[tokio::test]
async fn a_change_is_seen_when_the_ttl_is_over_and_not_before() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    zone.change([format!("add {service} 3 A 10.0.0.1")]).await;
    let mut watching = Watching::start(&addresses(&zone), &service);
    watching.instances().await;
    let answered = clock::now();
    zone.change([format!("add {service} 3 A 10.0.0.2")]).await;
    assert_eq!(watching.instances().await.len(), 2);
    let took = (clock::now() - answered).as_secs_f64();
    assert!((2.5..10.0).contains(&took), "{took}");
}

#[tokio::test]
async fn weights_and_priorities_are_followed() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    let mut watching = Watching::start(&srv(&zone), &service);
    // An unknown service has no instances.
    assert_eq!(watching.instances().await, []);
    zone.change([
        format!("add {service}-a 1 A 10.0.0.1"),
        format!("add {service}-b 1 A 10.0.0.2"),
        format!("add _{service}._tcp 1 SRV 1 5 80 {service}-a"),
        format!("add _{service}._tcp 1 SRV 2 7 81 {service}-b"),
    ])
    .await;
    let weights = |found: &[Instance]| found.iter().map(|i| i.weight).collect::<Vec<_>>();
    let found = watching.instances().await;
    assert_eq!(at(&found), ["10.0.0.1:80", "10.0.0.2:81"]);
    assert_eq!(weights(&found), [5, 0]);

    // Both of one priority.
    zone.change([
        format!("del _{service}._tcp SRV 2 7 81 {service}-b"),
        format!("add _{service}._tcp 1 SRV 1 7 81 {service}-b"),
    ])
    .await;
    watching.until(|found| weights(found) == [5, 7]).await;
    // The first is gone, and the other is nobody's substitute any more.
    zone.change([
        format!("del _{service}._tcp SRV 1 5 80 {service}-a"),
        format!("del _{service}._tcp SRV 1 7 81 {service}-b"),
        format!("add _{service}._tcp 1 SRV 9 7 81 {service}-b"),
    ])
    .await;
    watching.until(|found| weights(found) == [7]).await;
}

#[tokio::test]
async fn a_service_that_is_said_not_to_be_there_is_gone_at_once() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    let name = format!("_{service}._tcp");
    zone.change([
        format!("add {service} 1 A 10.0.0.1"),
        format!("add {name} 1 SRV 1 5 80 {service}"),
    ])
    .await;
    let watch = Resolver::new(srv(&zone)).watch(&*service);
    let first = watch.resolved().await.unwrap();
    assert_eq!(first.instances().len(), 1);

    zone.change([format!("del {name}"), format!("add {name} 1 SRV 0 0 0 .")])
        .await;
    let next = watch.changed(first.version()).await;
    assert_eq!(next.instances().len(), 0);
    let mut watching = Watching::start(&srv(&zone), &service);
    let update = Update::Instances {
        instances: vec![],
        authoritative: true,
    };
    assert_eq!(watching.next().await, update);
}

#[tokio::test]
async fn a_name_or_a_record_that_vanishes_takes_nobody_with_it() {
    let Some(zone) = Zone::real() else { return };
    // The one is no name any more, the other is a name without addresses.
    let (gone, bare) = (unique("gone"), unique("bare"));
    for service in [&gone, &bare] {
        let instance = |last: u8| format!("add {service} 1 A 10.0.0.{last}");
        zone.change([1, 2, 3].map(instance)).await;
    }
    zone.change([format!("add {bare} 1 TXT bare")]).await;
    let resolver = Resolver::new(addresses(&zone));
    for service in [&gone, &bare] {
        let watch = resolver.watch(service.as_str());
        let first = watch.resolved().await.unwrap();
        assert_eq!((first.live().len(), first.held().len()), (3, 0));
        zone.change([format!("del {service} A")]).await;
        let held = watch.changed(first.version()).await;
        assert_eq!((held.live().len(), held.held().len()), (0, 3));
        zone.change([format!("add {service} 1 A 10.0.0.2")]).await;
        let back = watch.changed(held.version()).await;
        assert_eq!((back.live().len(), back.held().len()), (1, 2));
    }
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let Some(zone) = Zone::real() else { return };
    let (hosts, service) = (unique("hosts"), unique("orders"));
    for n in 0..100 {
        let target = format!("{service}-{n}");
        zone.change([
            format!("add {hosts} 5 A 10.0.1.{n}"),
            format!("add {target} 5 A 10.0.2.{n}"),
            format!("add _{service}._tcp 5 SRV 1 1 80 {target}"),
        ])
        .await;
    }
    let found = Watching::start(&addresses(&zone), &hosts).instances().await;
    assert_eq!(found.len(), 100);
    let found = Watching::start(&srv(&zone), &service).instances().await;
    assert_eq!(found.len(), 100);
}

#[tokio::test]
async fn aliases_are_followed() {
    let Some(zone) = Zone::real() else { return };
    let (service, target) = (unique("orders"), unique("target"));
    zone.change([
        format!("add {service} 1 CNAME {target}-1"),
        format!("add {target}-1 1 CNAME {target}-2"),
        format!("add {target}-2 1 A 10.0.0.1"),
        format!("add _{service}._tcp 1 CNAME _{target}._tcp"),
        format!("add _{target}._tcp 1 SRV 1 1 80 {target}-1"),
    ])
    .await;
    for (dns, port) in [(addresses(&zone), 8080), (srv(&zone), 80)] {
        let found = Watching::start(&dns, &service).instances().await;
        assert_eq!(at(&found), [format!("10.0.0.1:{port}")]);
    }
}

#[tokio::test]
async fn the_family_chooses_among_the_addresses_of_a_host() {
    let Some(zone) = Zone::real() else { return };
    let service = unique("orders");
    zone.change([
        format!("add {service} 1 A 10.0.0.1"),
        format!("add {service} 1 AAAA ::1"),
        format!("add _{service}._tcp 1 SRV 1 1 8080 {service}"),
    ])
    .await;
    for (family, expected) in [
        (Family::PreferV4, &["10.0.0.1:8080"][..]),
        (Family::PreferV6, &["[::1]:8080"]),
        (Family::V4, &["10.0.0.1:8080"]),
        (Family::V6, &["[::1]:8080"]),
        (Family::Both, &["10.0.0.1:8080", "[::1]:8080"]),
    ] {
        for dns in [addresses(&zone), srv(&zone)] {
            let dns = dns.family(family).secure(true);
            let found = Watching::start(&dns, &service).instances().await;
            assert_eq!(at(&found), expected, "{family:?}");
            assert!(found.iter().all(|instance| instance.secure));
        }
    }
}
