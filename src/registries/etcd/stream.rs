use std::time::Duration;

use reqwest::Response;

use super::call::{Failure, Why};
use super::wire::{Line, Told};
use crate::clock;
use crate::discovery::ErrorKind;
use crate::registries::http::{Http, quoted};
use crate::registries::lines::LineStream;

/// A watch that has begun.
pub(super) struct Stream {
    pub(super) http: Http,
    lines: LineStream,
}

impl Stream {
    pub(super) fn new(http: Http, response: Response) -> Self {
        Self {
            lines: LineStream::new(http.clone(), response),
            http,
        }
    }

    /// What it tells next. Nothing is lost where it is dropped.
    pub(super) async fn next(&mut self) -> Result<Told, Failure> {
        let Some(line) = self.lines.next().await.map_err(Failure::broken)? else {
            let error = (self.http).error(ErrorKind::Unreachable, "the watch broke off");
            return Err(Failure::broken(error));
        };
        let line: Line<Told> = self.http.parse(&line).map_err(Failure::broken)?;
        line.read(&self.http)
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
        self.lines.has_more()
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_line_whatever_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Line<Told>>(&line);
        }
    }
}
