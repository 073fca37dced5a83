//! The file: a line that says what it is, a checksum and a length, and then a line for the owner, for each service and for
//! each of its instances, with fields between tabs. Lines, so that people can read it when nothing else works.
//!
//! ```text
//! buttress-snapshot 1 88b6f2d0 112
//! owner   trips in production
//! service orders  0       1763725853
//! instance        orders-1        10.0.0.7        8080    0       1       +a      version 1.4
//! ```
//!
//! Of a service: its name, which registry of the chain named it, and when that last confirmed it. Of an instance: id, host,
//! port, whether it speaks TLS, weight, `+` and the zone if it has one, and the metadata.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::Remembered;
use super::checksum::crc32;
use super::refusal::Refusal;
use super::secret::looks_secret;
use crate::discovery::instance::Instance;

/// What a resolver knows, by the name of the service.
pub(super) type Services = HashMap<Arc<str>, Remembered>;

/// The bytes of a file.
pub(super) fn encode(owner: &str, services: &Services) -> Vec<u8> {
    let mut body = String::new();
    line(&mut body, &["owner", owner]);
    for (name, remembered) in services {
        let position = remembered.position.to_string();
        let confirmed = remembered.confirmed.to_string();
        line(&mut body, &["service", name, &position, &confirmed]);
        for instance in &*remembered.instances {
            encode_instance(&mut body, instance);
        }
    }
    sealed(body.as_bytes())
}

/// `body` behind the line that vouches for it.
pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
    let crc = crc32(body);
    let header = format!("{NAME} {VERSION} {crc:08x} {}\n", body.len());
    [header.as_bytes(), body].concat()
}

/// What the file of `owner` says.
pub(super) fn decode(owner: &str, bytes: &[u8]) -> Result<Services, Refusal> {
    let (whose, services) = read(bytes)?;
    if whose != owner {
        return Err(Refusal::Owner {
            expected: owner.to_owned(),
            found: whose,
        });
    }
    Ok(services)
}

/// Whose file it is, and what it says.
pub(super) fn read(bytes: &[u8]) -> Result<(String, Services), Refusal> {
    let body = checked(bytes)?;
    let mut lines = body.lines().zip(2..);
    let whose = lines
        .next()
        .and_then(|(line, _)| line.strip_prefix("owner\t"));
    let whose = whose.and_then(field).ok_or(Refusal::Line { number: 2 })?;

    let mut services = Services::new();
    let mut service: Option<(Arc<str>, Remembered)> = None;
    let mut instances = Vec::new();
    for (line, number) in lines {
        let unreadable = || Refusal::Line { number };
        if let Some(fields) = line.strip_prefix("instance\t") {
            let instance = decode_instance(fields).filter(|_| service.is_some());
            instances.push(Arc::new(instance.ok_or_else(unreadable)?));
        } else {
            let fields = line.strip_prefix("service\t").ok_or_else(unreadable)?;
            let next = decode_service(fields).ok_or_else(unreadable)?;
            keep(&mut services, service.replace(next), &mut instances);
        }
    }
    keep(&mut services, service, &mut instances);
    Ok((whose.into_owned(), services))
}

fn keep(
    services: &mut Services,
    service: Option<(Arc<str>, Remembered)>,
    instances: &mut Vec<Arc<Instance>>,
) {
    if let Some((name, mut remembered)) = service {
        remembered.instances = instances.drain(..).collect();
        services.insert(name, remembered);
    }
}

/// What stands behind the first line, if it is what was written.
fn checked(bytes: &[u8]) -> Result<&str, Refusal> {
    let not_a_snapshot = || {
        let beginning = &bytes[..bytes.len().min(NAME.len() + 8)];
        let found = String::from_utf8_lossy(beginning).into_owned();
        Refusal::NotASnapshot { found }
    };
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (header, body) = bytes.split_at(end.ok_or_else(not_a_snapshot)?);
    let body = &body[1..];
    let header = std::str::from_utf8(header).map_err(|_| not_a_snapshot())?;
    let mut words = header.split(' ');
    if words.next() != Some(NAME) {
        return Err(not_a_snapshot());
    }
    let version = words.next().unwrap_or_default();
    if version != VERSION {
        let found = version.to_owned();
        return Err(Refusal::Version { found });
    }
    let crc = words.next();
    let length = words.next().and_then(|length| length.parse().ok());
    let (Some(expected), Some(length), None) = (crc, length, words.next()) else {
        return Err(Refusal::Line { number: 1 });
    };
    if body.len() != length {
        return Err(Refusal::Length {
            expected: length,
            found: body.len(),
        });
    }
    let found = format!("{:08x}", crc32(body));
    if found != expected {
        return Err(Refusal::Checksum {
            expected: expected.to_owned(),
            found,
        });
    }
    std::str::from_utf8(body).map_err(|_| Refusal::Line { number: 2 })
}

fn encode_instance(text: &mut String, instance: &Instance) {
    let port = instance.port.to_string();
    let secure = if instance.secure { "1" } else { "0" };
    let weight = instance.weight.to_string();
    let zone = instance.zone.as_ref().map(|zone| format!("+{zone}"));
    let mut fields = vec![
        "instance",
        &instance.id,
        &instance.host,
        &port,
        secure,
        &weight,
        zone.as_deref().unwrap_or_default(),
    ];
    let open = |(key, value): &(&String, &String)| !looks_secret(key, value);
    for (key, value) in instance.metadata.iter().filter(open) {
        fields.extend([key.as_str(), value]);
    }
    line(text, &fields);
}

fn decode_service(line: &str) -> Option<(Arc<str>, Remembered)> {
    let mut fields = line.split('\t');
    let name = field(fields.next()?)?;
    let remembered = Remembered {
        position: fields.next()?.parse().ok()?,
        confirmed: fields.next()?.parse().ok()?,
        instances: [].into(),
    };
    fields
        .next()
        .is_none()
        .then(|| (Arc::from(name), remembered))
}

fn decode_instance(line: &str) -> Option<Instance> {
    let mut fields = line.split('\t').map(field);
    let mut next = || fields.next().flatten();
    let mut instance = Instance::new(next()?, next()?, next()?.parse().ok()?)
        .secure(match &*next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        })
        .weight(next()?.parse().ok()?);
    let zone = next()?;
    if !zone.is_empty() {
        instance.zone = Some(zone.strip_prefix('+')?.to_owned());
    }
    while let Some(key) = fields.next() {
        let (key, value) = (key?, fields.next()??);
        instance
            .metadata
            .insert(key.into_owned(), value.into_owned());
    }
    Some(instance)
}

fn line(text: &mut String, fields: &[&str]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            text.push('\t');
        }
        let mut rest = *field;
        while let Some(at) = rest.find(['\\', '\t', '\n', '\r']) {
            text.push_str(&rest[..at]);
            text.push_str(match rest.as_bytes()[at] {
                b'\t' => "\\t",
                b'\n' => "\\n",
                b'\r' => "\\r",
                _ => "\\\\",
            });
            rest = &rest[at + 1..];
        }
        text.push_str(rest);
    }
    text.push('\n');
}

fn field(escaped: &str) -> Option<Cow<'_, str>> {
    if !escaped.contains('\\') {
        return Some(Cow::Borrowed(escaped));
    }
    let mut field = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('\\') {
        field.push_str(before);
        let mut after = after.chars();
        field.push(match after.next()? {
            '\\' => '\\',
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            _ => return None,
        });
        rest = after.as_str();
    }
    field.push_str(rest);
    Some(Cow::Owned(field))
}

const NAME: &str = "buttress-snapshot";
pub(super) const VERSION: &str = "1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By name, so that they can be compared.
    fn sorted(services: &Services) -> Vec<(String, usize, u64, Vec<Instance>)> {
        let mut sorted: Vec<_> = services
            .iter()
            .map(|(name, it)| {
                let instances = it.instances.iter().map(|one| (**one).clone());
                (
                    name.to_string(),
                    it.position,
                    it.confirmed,
                    instances.collect(),
                )
            })
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        sorted
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9.-]{0,12}",
            "[\t\n\r\\\\+ a]{0,6}",
            "[\u{0}-\u{10FFFF}]{0,4}",
        ]
    }

    prop_compose! {
        fn instances()(
            id in text(), host in text(), port: u16, secure: bool, weight: u32,
            zone in proptest::option::of(text()),
            metadata in proptest::collection::btree_map(text(), text(), 0..3),
        ) -> Arc<Instance> {
            let mut instance = Instance::new(id, host, port).secure(secure).weight(weight);
            instance.zone = zone;
            instance.metadata = metadata;
            Arc::new(instance)
        }
    }

    fn services() -> impl Strategy<Value = Services> {
        let service = (
            0..4_usize,
            any::<u64>(),
            proptest::collection::vec(instances(), 0..4),
        );
        let service = service.prop_map(|(position, confirmed, instances)| Remembered {
            position,
            confirmed,
            instances: instances.into(),
        });
        proptest::collection::hash_map(text().prop_map(Arc::from), service, 0..4)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(owner in text(), services in services()) {
            let bytes = encode(&owner, &services);
            let read = decode(&owner, &bytes);
            prop_assert_eq!(sorted(&read.unwrap()), sorted(&services));
        }

        #[test]
        fn a_file_in_which_a_byte_changed_is_refused(
            services in services(), at: prop::sample::Index, flip in 1..=u8::MAX,
        ) {
            let mut bytes = encode("o", &services);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode("o", &bytes).is_err());
        }

        #[test]
        fn a_file_that_was_cut_off_or_prolonged_is_refused(
            services in services(), at: prop::sample::Index, more in proptest::collection::vec(any::<u8>(), 1..9),
        ) {
            let mut bytes = encode("o", &services);
            prop_assert!(decode("o", &bytes[..at.index(bytes.len())]).is_err());
            bytes.extend(more);
            prop_assert!(decode("o", &bytes).is_err());
        }

        #[test]
        fn no_bytes_at_all_make_it_panic(bytes: Vec<u8>, body in "(owner\t\n)?[a-z\t\n\\\\0-9]{0,60}") {
            let _ = decode("", &bytes);
            // What has the right checksum, and yet was never written.
            let _ = decode("", &sealed(body.as_bytes()));
        }
    }

    #[test]
    fn a_refusal_says_what_was_expected_and_what_was_found() {
        let file = encode("a", &Services::new());
        let other = String::from_utf8(file.clone()).unwrap();
        let table: [(&str, &[u8], &str); 6] = [
            (
                "a",
                b"",
                "expected a snapshot, found a file that begins \"\"",
            ),
            (
                "a",
                b"\x7fELF\n",
                "expected a snapshot, found a file that begins \"\\u{7f}ELF\\n\"",
            ),
            (
                "a",
                &other.replacen(" 1 ", " 2 ", 1).into_bytes(),
                "of another version: expected version 1, found \"2\"",
            ),
            (
                "a",
                &file[..file.len() - 3],
                "cut off: expected 8 bytes after the header, found 5",
            ),
            ("b", &file, "expected the owner \"b\", found \"a\""),
            (
                "a",
                b"buttress-snapshot 1 00000000 1\nx",
                "corrupted: expected the checksum \"00000000\", found \"8cdc1683\"",
            ),
        ];
        for (owner, bytes, expected) in table {
            let refusal = decode(owner, bytes).unwrap_err();
            assert_eq!(refusal.to_string(), expected);
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_not_written() {
        let instance = Instance::new("a", "h", 80)
            .metadata("version", "1")
            .metadata("Admin-Token", "t0ken");
        let remembered = Remembered {
            position: 0,
            confirmed: 0,
            instances: [Arc::new(instance)].into(),
        };
        let bytes = encode("", &Services::from([(Arc::from("orders"), remembered)]));
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.ends_with("instance\ta\th\t80\t0\t1\t\tversion\t1\n"),
            "{text}"
        );
    }
}
