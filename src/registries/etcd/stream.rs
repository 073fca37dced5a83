use std::time::Duration;

use reqwest::Response;

use super::call::{Failure, Why};
use super::wire::{Line, Told};
use crate::clock;
use crate::discovery::ErrorKind;
use crate::registries::http::{Http, LONGEST_ANSWER, quoted};

/// An answer that goes on: a line of JSON each time that there is something to tell.
pub(super) struct Stream {
    pub(super) http: Http,
    response: Response,
    lines: Lines,
}

impl Stream {
    pub(super) fn new(http: Http, response: Response) -> Self {
        Self {
            http,
            response,
            lines: Lines::default(),
        }
    }

    /// What it tells next. Nothing is lost where it is dropped.
    pub(super) async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            if let Some(line) = self.lines.next() {
                let line: Line<Told> = self.http.parse(&line).map_err(Failure::broken)?;
                return line.read(&self.http);
            }
            if self.lines.len() > LONGEST_ANSWER {
                let message = format!("a line is longer than {LONGEST_ANSWER} bytes");
                return Err(self.broken(ErrorKind::Malformed, message));
            }
            let chunk = self.http.chunk(&mut self.response).await;
            match chunk.map_err(Failure::broken)? {
                Some(chunk) => self.lines.extend(chunk.as_ref()),
                None => return Err(self.broken(ErrorKind::Unreachable, "the watch broke off")),
            }
        }
    }

    /// What it tells within `limit`.
    pub(super) async fn within(&mut self, limit: Duration) -> Result<Told, Failure> {
        tokio::select! {
            biased;
            told = self.next() => told,
            () = clock::sleep(limit) => Err(Failure::broken(
                self.http.error(ErrorKind::TimedOut, "the watch does not begin"),
            )),
        }
    }

    /// Whether more has come than was read.
    pub(super) fn has_more(&self) -> bool {
        self.lines.is_complete()
    }

    /// Why it tells no more.
    pub(super) fn canceled(&self, told: &Told) -> Failure {
        let words = match self.http.quotable(&told.cancel_reason) {
            true => format!("it ended the watch: {}", quoted(&told.cancel_reason)),
            false => "it ended the watch".to_owned(),
        };
        // Older versions say the same where the token has expired and where it lacks the right.
        match told.cancel_reason.contains("permission denied") {
            true => Failure::new(self.http.error(ErrorKind::Denied, words), Why::Token),
            false => Failure::broken(self.http.error(ErrorKind::Failed, words)),
        }
    }

    fn broken(&self, kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure::broken(self.http.error(kind, message))
    }
}

/// Bytes cut into lines, however they come.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where the search for the next end goes on.
    searched: usize,
}

impl Lines {
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How much there is.
    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next line that is complete and not empty.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let rest = &self.bytes[self.searched..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let mut line: Vec<_> = self.bytes.drain(..=self.searched + end).collect();
            self.searched = 0;
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.bytes[self.searched..].contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(
            text in "[ab\\r\\n ]{0,60}",
            cuts in proptest::collection::vec(0..10_usize, 0..30),
        ) {
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let expected: Vec<_> = (whole.split('\n'))
                .filter(|line| !line.trim_ascii().is_empty())
                .map(|line| line.as_bytes().to_vec())
                .collect();
            let (mut lines, mut rest, mut got) = (Lines::default(), text.as_bytes(), Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (chunk, left) = rest.split_at(cut.min(rest.len()));
                rest = left;
                lines.extend(chunk);
                got.extend(std::iter::from_fn(|| lines.next()));
                prop_assert!(!lines.is_complete());
            }
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn no_line_whatever_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Line<Told>>(&line);
        }
    }
}
