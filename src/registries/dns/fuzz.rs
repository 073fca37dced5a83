use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::answer::{self, Answer};
use super::instances::{self, Family};
use super::name::{self, Template};
use super::round;
use crate::discovery::Instance;

/// Answers as they come over TCP, each behind its length: the first to what was asked, the others to questions for the
/// addresses of targets. In whatever order the records come, the instances are the same.
pub(crate) fn answers(bytes: &[u8]) {
    let mut messages = messages(bytes);
    let Some(first) = messages.next() else {
        return;
    };
    let Some(asked) = first.queries.first().map(|query| query.name().clone()) else {
        return;
    };
    let mut ips = addresses(first.clone(), &asked);
    let listed = instances::of_addresses(ips.clone(), 80, false);
    check(&listed);
    ips.reverse();
    assert_eq!(instances::of_addresses(ips, 80, false), listed);

    let Ok(Answer::Records {
        records,
        additional,
        ..
    }) = Answer::read(first, &asked, RecordType::SRV)
    else {
        return;
    };
    let mut services: Vec<_> = records.into_iter().filter_map(round::srv).collect();
    let mut found = HashMap::new();
    for service in &services {
        let target = &service.target;
        found
            .entry(target.clone())
            .or_insert_with(|| match round::told(&additional, target).ips {
                ips if ips.is_empty() => {
                    (messages.next()).map_or_else(Vec::new, |message| addresses(message, target))
                }
                ips => ips,
            });
    }
    let listed = instances::of_services(&services, &found, false);
    check(&listed);
    assert!(listed.is_empty() || listed.iter().any(|instance| instance.weight > 0));
    services.reverse();
    found.values_mut().for_each(|ips| ips.reverse());
    assert_eq!(instances::of_services(&services, &found, false), listed);
}

/// A template, the name of a service, and domains to search, a line each.
pub(crate) fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let (template, service) = (lines.next().unwrap_or_default(), lines.next());
    let Ok(template) = Template::new(template) else {
        return;
    };
    let Ok(found) = template.name(service.unwrap_or_default()) else {
        return;
    };
    let search: Vec<_> = lines
        .filter_map(|line| Name::from_utf8(line).ok())
        .collect();
    for ndots in [0, 1, 5] {
        let names = name::candidates(&found, &search, ndots);
        assert!(names.iter().all(Name::is_fqdn));
        assert!((1..=1 + search.len()).contains(&names.len()));
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    let next = move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(Message::from_vec(message))
    };
    std::iter::from_fn(next).map_while(Result::ok)
}

/// All that `message` says of where `name` is.
fn addresses(message: Message, name: &Name) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        match Answer::read(message.clone(), name, kind) {
            Ok(Answer::Records { records, .. }) => {
                let before = all.len();
                all.extend(records.iter().filter_map(answer::address));
                assert_eq!(all.len() - before, records.len());
            }
            Ok(Answer::Alias { of, .. }) => assert_ne!(of, *name),
            Err(fault) => assert!(!fault.what.is_empty()),
        }
    }
    let families = [Family::PreferV4, Family::PreferV6, Family::V4, Family::V6];
    for family in families {
        let chosen = family.choose(all.clone());
        assert!(
            chosen
                .windows(2)
                .all(|two| two[0].is_ipv4() == two[1].is_ipv4())
        );
    }
    all
}

fn check(instances: &[Instance]) {
    let ids: HashSet<_> = instances.iter().map(|instance| &instance.id).collect();
    assert_eq!(ids.len(), instances.len());
    for instance in instances {
        let host: IpAddr = instance.host.parse().expect("an address");
        assert!(!host.is_unspecified());
        assert_ne!(instance.port, 0);
    }
}
