//! What an answer says of a name.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::net::NoRecords;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::discovery::ErrorKind;

/// What a server said of a name, or of what the name is an alias of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// These are all the records of the type asked for; none, if there is no such name, or no such record of it.
    Records {
        records: Vec<RData>,
        /// Records of other names that may be of use.
        additional: Vec<Record>,
        /// For how long it holds.
        ttl: Duration,
    },
    /// It is an alias of a name of which it said nothing.
    Alias { of: Name, ttl: Duration },
}

impl Answer {
    /// What `message` says of the records of type `kind` of `asked`. The order of its records means nothing.
    pub(super) fn read(message: Message, asked: &Name, kind: RecordType) -> Result<Self, Fault> {
        if !matches!(
            message.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        ) {
            return Err(Fault::code(message.response_code));
        }
        let mut name = asked;
        let mut ttl = Duration::MAX;
        for _ in 0..ALIASES {
            let mut records = Vec::new();
            for record in of(&message.answers, name, kind) {
                if is_blank(record) {
                    return Err(Fault::blank());
                }
                ttl = ttl.min(seconds(record.ttl));
                records.push(record.data.clone());
            }
            if !records.is_empty() {
                return Ok(Self::Records {
                    records,
                    additional: message.additionals,
                    ttl,
                });
            }
            if let Some(alias) = of(&message.answers, name, RecordType::CNAME).next() {
                let RData::CNAME(target) = &alias.data else {
                    return Err(Fault::blank());
                };
                ttl = ttl.min(seconds(alias.ttl));
                name = &target.0;
                continue;
            }
            let denied = negative(&message.authorities);
            if name != asked && denied.is_none() && message.response_code == ResponseCode::NoError {
                let of = name.clone();
                return Ok(Self::Alias { of, ttl });
            }
            return Ok(Self::none(denied.map(|denied| denied.min(ttl))));
        }
        Err(Fault::too_many_aliases())
    }

    /// What a server says that found nothing.
    pub(super) fn negative(found: &NoRecords) -> Result<Self, Fault> {
        if found.ns.is_some() && found.soa.is_none() {
            let what = "refers to other servers, and does not ask them itself";
            return Err(Fault::new(ErrorKind::Failed, what));
        }
        Ok(Self::none(found.negative_ttl.map(seconds)))
    }

    fn none(ttl: Option<Duration>) -> Self {
        Self::Records {
            records: Vec::new(),
            additional: Vec::new(),
            ttl: ttl.unwrap_or(NEGATIVE).min(NEGATIVE),
        }
    }
}

/// What went wrong; of a server, as the rest of a sentence that begins with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { kind, what }
    }

    pub(super) fn code(code: ResponseCode) -> Self {
        let kind = match code {
            ResponseCode::Refused | ResponseCode::NotAuth => ErrorKind::Denied,
            _ => ErrorKind::Failed,
        };
        Self::new(kind, format!("answered {}: {code}", mnemonic(code)))
    }

    pub(super) fn too_many_aliases() -> Self {
        let what = format!("told of more than {ALIASES} aliases in a row, or a circle of them");
        Self::new(ErrorKind::Malformed, what)
    }

    fn blank() -> Self {
        Self::new(ErrorKind::Malformed, "answered a record with nothing in it")
    }

    /// A task that was to ask did not come to an end.
    pub(super) fn lost() -> Self {
        let what = "a question panicked, or the runtime ended";
        Self::new(ErrorKind::Failed, what)
    }
}

/// The address in a record.
pub(super) fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

pub(super) fn seconds(ttl: u32) -> Duration {
    // RFC 2181, section 8: with the highest bit set, it is none.
    Duration::from_secs(u64::from(if ttl >> 31 == 1 { 0 } else { ttl }))
}

/// The records of that name and type.
fn of<'a>(
    records: &'a [Record],
    name: &'a Name,
    kind: RecordType,
) -> impl Iterator<Item = &'a Record> {
    let found = move |record: &&Record| record.name == *name && record.record_type() == kind;
    records.iter().filter(found)
}

/// Whether it has a type and no data, which it may have in an update alone.
fn is_blank(record: &Record) -> bool {
    matches!(record.data, RData::Update0(_))
}

/// For how long it holds that there is nothing, after RFC 2308.
fn negative(authorities: &[Record]) -> Option<Duration> {
    authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
        _ => None,
    })
}

/// The word by which operators know it.
fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        code => format!("code {}", u16::from(code)),
    }
}

/// How many aliases may follow one another: as many as common resolvers go along with.
pub(super) const ALIASES: usize = 8;
/// Nothing is believed for longer than this: a service that comes to be is wanted at once, and one that is gone has to
/// be gone in a second answer to be given up.
const NEGATIVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::op::{OpCode, Query};
    use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("test."), ttl, RData::SOA(soa))
    }

    fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::response(7, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("a.test."), RecordType::A));
        message.answers = answers;
        message.authorities = authorities;
        message
    }

    fn read(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Answer {
        let message = message(code, answers, authorities);
        Answer::read(message, &name("a.test."), RecordType::A).unwrap()
    }

    fn found(answer: &Answer) -> (Vec<u8>, u64) {
        match answer {
            Answer::Records { records, ttl, .. } => {
                let last = records.iter().map(|data| match address(data) {
                    Some(IpAddr::V4(ip)) => ip.octets()[3],
                    other => panic!("{other:?}"),
                });
                (last.collect(), ttl.as_secs())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_the_shortest_ttl_counts() {
        let mut answers = vec![
            alias("A.test.", 70, "b.test."),
            alias("b.test.", 50, "C.TEST."),
            a("c.test.", 60, 1),
            a("c.test.", 90, 2),
            a("else.test.", 1, 9),
        ];
        for _ in 0..answers.len() {
            answers.rotate_left(1);
            let (mut last, ttl) = found(&read(ResponseCode::NoError, answers.clone(), vec![]));
            last.sort_unstable();
            assert_eq!((last, ttl), (vec![1, 2], 50));
        }
    }

    #[test]
    fn an_alias_without_its_target_is_to_be_asked_for() {
        let answers = vec![
            alias("a.test.", 70, "b.test."),
            alias("b.test.", 50, "c.else."),
        ];
        let expected = Answer::Alias {
            of: name("c.else."),
            ttl: Duration::from_secs(50),
        };
        assert_eq!(read(ResponseCode::NoError, answers, vec![]), expected);
    }

    #[test]
    fn nothing_is_an_answer_that_holds_for_no_longer_than_a_quarter_of_a_minute() {
        let here = || vec![alias("a.test.", 2, "b.test.")];
        for (code, answers, authorities, ttl) in [
            (ResponseCode::NXDomain, vec![], vec![soa(9, 5)], 5),
            (ResponseCode::NoError, vec![], vec![soa(4, 5)], 4),
            (ResponseCode::NoError, vec![], vec![soa(3600, 3600)], 15),
            (ResponseCode::NoError, vec![], vec![], 15),
            (ResponseCode::NoError, here(), vec![soa(9, 9)], 2),
            (ResponseCode::NXDomain, here(), vec![soa(9, 1)], 1),
            (ResponseCode::NXDomain, here(), vec![], 15),
        ] {
            assert_eq!(found(&read(code, answers, authorities)), (vec![], ttl));
        }
    }

    #[test]
    fn any_other_code_is_a_failure_whatever_else_the_answer_holds() {
        for (code, kind, said) in [
            (ResponseCode::ServFail, ErrorKind::Failed, "SERVFAIL"),
            (ResponseCode::Refused, ErrorKind::Denied, "REFUSED"),
            (ResponseCode::NotAuth, ErrorKind::Denied, "NOTAUTH"),
            (ResponseCode::NotImp, ErrorKind::Failed, "NOTIMP"),
            (ResponseCode::Unknown(99), ErrorKind::Failed, "code 99"),
        ] {
            let message = message(code, vec![a("a.test.", 9, 1)], vec![soa(9, 9)]);
            let fault = Answer::read(message, &name("a.test."), RecordType::A).unwrap_err();
            assert_eq!(fault.kind, kind);
            assert!(fault.what.contains(said), "{}", fault.what);
        }
    }

    #[test]
    fn a_circle_and_an_endless_chain_of_aliases_are_failures() {
        let circle = vec![
            alias("a.test.", 9, "b.test."),
            alias("b.test.", 9, "a.test."),
        ];
        let mut chain = vec![alias("a.test.", 9, "0.test.")];
        chain.extend((0..9).map(|n| alias(&format!("{n}.test."), 9, &format!("{}.test.", n + 1))));
        for answers in [circle, chain] {
            let message = message(ResponseCode::NoError, answers, vec![]);
            let fault = Answer::read(message, &name("a.test."), RecordType::A).unwrap_err();
            assert_eq!(fault.kind, ErrorKind::Malformed);
        }
    }

    #[test]
    fn a_record_with_nothing_in_it_is_a_failure_and_not_nobody() {
        for kind in [RecordType::A, RecordType::CNAME] {
            let blank = Record::from_rdata(name("a.test."), 9, RData::Update0(kind));
            let message = message(ResponseCode::NoError, vec![blank], vec![]);
            let fault = Answer::read(message, &name("a.test."), RecordType::A).unwrap_err();
            assert_eq!(fault.kind, ErrorKind::Malformed);
        }
    }

    #[test]
    fn a_ttl_with_the_highest_bit_set_is_none() {
        assert_eq!(seconds(u32::MAX), Duration::ZERO);
        assert_eq!(seconds(u32::MAX >> 1).as_secs(), u64::from(u32::MAX >> 1));
    }

    fn record() -> impl Strategy<Value = Record> {
        let owner = || proptest::sample::select(vec!["a.test.", "b.test.", "c.test.", "d.test."]);
        prop_oneof![
            (owner(), any::<u32>(), any::<u8>()).prop_map(|(owner, ttl, last)| a(owner, ttl, last)),
            (owner(), any::<u32>(), owner()).prop_map(|(owner, ttl, to)| alias(owner, ttl, to)),
            (any::<u32>(), any::<u32>()).prop_map(|(ttl, minimum)| soa(ttl, minimum)),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::from_vec(&bytes) {
                let asked = message.answers.first().map_or_else(Name::root, |record| record.name.clone());
                let _ = Answer::read(message, &asked, RecordType::A);
            }
        }

        #[test]
        fn no_message_makes_it_panic_and_what_it_finds_is_of_the_type_asked_for(
            code in any::<u16>(),
            answers in proptest::collection::vec(record(), 0..12),
            authorities in proptest::collection::vec(record(), 0..3),
        ) {
            let message = message(ResponseCode::from(0, code as u8 & 3), answers, authorities);
            if let Ok(Answer::Records { records, .. }) = Answer::read(message, &name("a.test."), RecordType::A) {
                prop_assert!(records.iter().all(|data| address(data).is_some()));
            }
        }
    }
}
