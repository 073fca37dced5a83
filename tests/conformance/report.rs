use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use crate::vector::{Head, Level};

/// Why a vector did not pass.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The library does something else.
    Failed(String),
    /// The library has no such thing, or the formats know something that this replay does not.
    Unsupported(String),
}

impl Miss {
    /// Says where it was.
    pub(crate) fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Failed(what) => Self::Failed(format!("{place}: {what}")),
            Self::Unsupported(what) => Self::Unsupported(format!("{place}: {what}")),
        }
    }
}

/// `Ok` if both are the same.
pub(crate) fn same<T>(what: &str, got: T, wanted: T) -> Result<(), Miss>
where
    T: PartialEq + std::fmt::Debug,
{
    if got == wanted {
        return Ok(());
    }
    Err(Miss::Failed(format!(
        "{what} is {got:?} instead of {wanted:?}"
    )))
}

/// What became of all vectors, by file and profile.
#[derive(Default)]
pub(crate) struct Report(BTreeMap<(String, String), Results>);

#[derive(Default)]
struct Results {
    passed: usize,
    failed: Vec<String>,
    unsupported: Vec<String>,
    /// How many of those that passed or are not supported are of the level that every library of the profile has.
    core: usize,
    core_unsupported: usize,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        file: &str,
        profile: &str,
        head: &Head,
        verdict: Result<(), Miss>,
    ) {
        let key = (file.to_owned(), profile.to_owned());
        let results = self.0.entry(key).or_default();
        let core = head.level == Level::Core;
        let verdict = match (verdict, head.level) {
            // A quirk is what a library does and none should copy: here the opposite is asserted.
            (Ok(()), Level::Quirk) => {
                let better = head
                    .note
                    .as_deref()
                    .unwrap_or("no note says what is better");
                Err(Miss::Failed(format!("copies a quirk ({better})")))
            }
            (Err(Miss::Failed(_)), Level::Quirk) => Ok(()),
            (Err(Miss::Failed(why)), Level::Edge) if profile != STANDARD => Err(Miss::Unsupported(
                format!("an edge that is not claimed: {why}"),
            )),
            (verdict, _) => verdict,
        };
        results.core += usize::from(core);
        match verdict {
            Ok(()) => results.passed += 1,
            Err(Miss::Failed(why)) => results.failed.push(format!("{}: {why}", head.id)),
            Err(Miss::Unsupported(why)) => {
                results.core_unsupported += usize::from(core);
                results.unsupported.push(format!("{}: {why}", head.id));
            }
        }
    }

    /// Past the test harness, which keeps to itself what a test prints and passes.
    pub(crate) fn print(&self) {
        let mut text = String::new();
        for ((file, profile), results) in &self.0 {
            let (failed, unsupported) = (results.failed.len(), results.unsupported.len());
            let _ = writeln!(
                text,
                "{file} {profile}: {} passed, {failed} failed, {unsupported} unsupported",
                results.passed
            );
            for why in &results.unsupported {
                let _ = writeln!(text, "    unsupported: {why}");
            }
            for why in &results.failed {
                let _ = writeln!(text, "    FAILED: {why}");
            }
        }
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }

    pub(crate) fn assert_all_supported(&self) {
        for results in self.0.values() {
            assert!(results.unsupported.is_empty(), "{:#?}", results.unsupported);
        }
    }

    /// Nothing failed; of the standard everything passed, of the others all but a few core vectors.
    pub(crate) fn assert(&self) {
        let (mut core, mut missing) = (0, 0);
        for ((file, profile), results) in &self.0 {
            assert!(results.failed.is_empty(), "{:#?}", results.failed);
            if file == "breaker.json" && profile == STANDARD {
                assert!(results.unsupported.is_empty(), "{:#?}", results.unsupported);
            } else {
                core += results.core;
                missing += results.core_unsupported;
            }
        }
        assert!(
            missing * 100 <= core * MOST_UNSUPPORTED_PERCENT,
            "{missing} of {core} core vectors are not supported"
        );
    }
}

/// The circuit breaker's semantics where others disagree.
const STANDARD: &str = "resilience4j";

const MOST_UNSUPPORTED_PERCENT: usize = 5;
