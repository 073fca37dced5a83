use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// A header that says how long the caller still waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Header<'a> {
    /// `grpc-timeout`, as [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) has it.
    Grpc,
    /// Whole milliseconds in decimal digits.
    Millis(&'a HeaderName),
}

/// The header of milliseconds, unless told otherwise.
pub(super) static MILLIS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

impl<'a> Header<'a> {
    /// The one for a request with these headers, if those that are not gRPC's have it in `millis`.
    pub(super) fn of(headers: &HeaderMap, millis: &'a HeaderName) -> Self {
        match headers.get(CONTENT_TYPE) {
            Some(it) if it.as_bytes().starts_with(b"application/grpc") => Self::Grpc,
            _ => Self::Millis(millis),
        }
    }

    /// What `headers` say; `None` if they say nothing, or what cannot be read.
    pub(super) fn read(self, headers: &HeaderMap) -> Option<Duration> {
        match self {
            Self::Grpc => parse_grpc(headers.get(&GRPC)?.to_str().ok()?),
            Self::Millis(name) => {
                parse_digits(headers.get(name)?.to_str().ok()?).map(Duration::from_millis)
            }
        }
    }

    /// Says in `headers` that there is `left`, rounded down; false if that leaves nothing to say.
    pub(super) fn write(self, left: Duration, headers: &mut HeaderMap) -> bool {
        let (name, value) = match self {
            Self::Grpc => (&GRPC, format_grpc(left)),
            Self::Millis(name) => {
                let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                (name, (millis > 0).then(|| millis.into()))
            }
        };
        let said = value.map(|value| headers.insert(name, value));
        said.is_some()
    }
}

/// Up to eight digits and a unit. Zero is what some clients send once time is over.
fn parse_grpc(value: &str) -> Option<Duration> {
    let (count, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if count.len() > 8 {
        return None;
    }
    let count = parse_digits(count)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// In the finest unit that eight digits are enough for. `None` for no time at all.
fn format_grpc(left: Duration) -> Option<HeaderValue> {
    if left.is_zero() {
        return None;
    }
    let nanos = left.as_nanos();
    let counts = UNITS.map(|(unit, length)| (nanos / length, unit));
    let (count, unit) = counts
        .into_iter()
        .find(|(count, _)| *count <= MOST)
        .unwrap_or((MOST, 'H'));
    HeaderValue::try_from(format!("{count}{unit}")).ok()
}

/// Digits alone: the standard parser lets a sign through.
fn parse_digits(value: &str) -> Option<u64> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

static GRPC: HeaderName = HeaderName::from_static("grpc-timeout");

/// Eight digits.
const MOST: u128 = 99_999_999;

/// The units, and how many nanoseconds each is.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static MS: Header<'static> = Header::Millis(&MILLIS);

    fn read(header: Header<'_>, value: &[u8]) -> Option<Duration> {
        let name = match header {
            Header::Grpc => &GRPC,
            Header::Millis(name) => name,
        };
        let value = HeaderValue::from_bytes(value).ok()?;
        header.read(&HeaderMap::from_iter([(name.clone(), value)]))
    }

    fn write(header: Header<'_>, left: Duration) -> Option<(String, Option<Duration>)> {
        let mut headers = HeaderMap::new();
        let written = header.write(left, &mut headers);
        let value = headers.values().next();
        assert_eq!(value.is_some(), written);
        let value = value?.to_str().unwrap().to_owned();
        Some((value, header.read(&headers)))
    }

    #[test]
    fn each_unit_is_read() {
        for (value, nanos) in [
            ("1n", 1),
            ("20u", 20_000),
            ("300m", 300_000_000),
            ("5S", 5_000_000_000),
            ("2M", 120_000_000_000),
            ("1H", 3_600_000_000_000),
            ("0m", 0),
            ("00000007n", 7),
        ] {
            assert_eq!(
                read(Header::Grpc, value.as_bytes()),
                Some(Duration::from_nanos(nanos)),
                "{value}"
            );
        }
        let most = Duration::from_secs(99_999_999 * 3600);
        assert_eq!(read(Header::Grpc, b"99999999H"), Some(most));
        assert_eq!(read(MS, b"250"), Some(Duration::from_millis(250)));
        let most = Duration::from_millis(u64::MAX);
        assert_eq!(read(MS, b"18446744073709551615"), Some(most));
    }

    #[test]
    fn what_is_no_timeout_is_ignored() {
        for value in [
            "",
            "5",
            "S",
            "5s",
            "5h",
            "5 S",
            " 5S",
            "+5S",
            "-5S",
            "5.5S",
            "5SS",
            "0x5S",
            "123456789S",
            "5\u{e9}",
            "\u{e9}",
            "\u{665}S",
        ] {
            assert_eq!(read(Header::Grpc, value.as_bytes()), None, "{value:?}");
        }
        for value in [
            "",
            " 5",
            "+5",
            "-5",
            "5.5",
            "5m",
            "18446744073709551616",
            "\u{665}",
        ] {
            assert_eq!(read(MS, value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(Header::Grpc.read(&HeaderMap::new()), None);
    }

    #[test]
    fn the_unit_is_the_finest_that_fits_into_eight_digits() {
        for (nanos, expected) in [
            (1, "1n"),
            (99_999_999, "99999999n"),
            (100_000_000, "100000u"),
            (100_000_000_000 - 1, "99999999u"),
            (100_000_000_000, "100000m"),
        ] {
            let (value, _) = write(Header::Grpc, Duration::from_nanos(nanos)).unwrap();
            assert_eq!(value, expected);
        }
        let (value, _) = write(Header::Grpc, Duration::MAX).unwrap();
        assert_eq!(value, "99999999H");
        let (value, _) = write(MS, Duration::MAX).unwrap();
        assert_eq!(value, "18446744073709551615");
    }

    #[test]
    fn no_time_is_not_written_since_peers_may_take_it_for_all_time() {
        assert_eq!(write(Header::Grpc, Duration::ZERO), None);
        assert_eq!(write(MS, Duration::from_micros(999)), None);
    }

    #[test]
    fn a_grpc_request_is_known_by_its_content_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            let header = Header::of(&headers, &MILLIS);
            assert_eq!(matches!(header, Header::Grpc), grpc, "{value}");
        }
        assert!(matches!(
            Header::of(&HeaderMap::new(), &MILLIS),
            Header::Millis(_)
        ));
    }

    /// Durations of every order of magnitude.
    fn durations() -> impl Strategy<Value = Duration> {
        (0..64u32, any::<u64>(), 0..1_000_000_000u32)
            .prop_map(|(shift, secs, nanos)| Duration::new(secs >> shift, nanos))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_more_than_there_is(left in durations()) {
            if let Some((value, read)) = write(Header::Grpc, left) {
                prop_assert!(value.len() <= 9, "{value}");
                let read = read.expect("what was written can be read");
                prop_assert!(read <= left, "{value}");
                // Five digits are right at least, unless even hours do not fit.
                let lost = left - read;
                let hours = Duration::from_secs(99_999_999 * 3600);
                prop_assert!(left > hours || lost.as_nanos() <= left.as_nanos() / 99_999, "{value}");
            }
            if let Some((value, read)) = write(MS, left) {
                let read = read.expect("what was written can be read");
                prop_assert!(read <= left, "{value}");
                prop_assert!(read.as_millis() == left.as_millis() || read.as_millis() == u128::from(u64::MAX));
            }
        }

        #[test]
        fn no_value_of_a_header_panics(value in proptest::collection::vec(any::<u8>(), 0..24)) {
            for header in [Header::Grpc, MS] {
                if let Some(limit) = read(header, &value) {
                    prop_assert!(value[0].is_ascii_digit());
                    let _ = crate::deadline::Deadline::within(limit);
                }
            }
        }

        #[test]
        fn digits_and_a_unit_are_read_exactly(count in 0..=99_999_999u64, unit in 0..UNITS.len()) {
            let (letter, length) = UNITS[unit];
            let limit = read(Header::Grpc, format!("{count}{letter}").as_bytes());
            prop_assert_eq!(limit.map(|it| it.as_nanos()), Some(u128::from(count) * length));
        }
    }
}
