//! Answers that go on: a line of JSON each time that there is something to tell.

use reqwest::Response;

use super::http::{Http, LONGEST_ANSWER};
use crate::discovery::{ErrorKind, RegistryError};

/// An answer that is read line by line.
pub(super) struct LineStream {
    pub(super) http: Http,
    response: Response,
    lines: Lines,
}

impl LineStream {
    pub(super) fn new(http: Http, response: Response) -> Self {
        Self {
            http,
            response,
            lines: Lines::default(),
        }
    }

    /// The next line that is not empty, or nothing at the answer's end. Nothing is lost where it is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if self.lines.len() > LONGEST_ANSWER {
                let message = format!("a line is longer than {LONGEST_ANSWER} bytes");
                return Err(self.http.error(ErrorKind::Malformed, message));
            }
            match self.http.chunk(&mut self.response).await? {
                Some(chunk) => self.lines.extend(chunk.as_ref()),
                None => return Ok(None),
            }
        }
    }

    /// Whether more has come than was read.
    pub(super) fn has_more(&self) -> bool {
        self.lines.is_complete()
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
    }
}
