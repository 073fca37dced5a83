use std::sync::Arc;
use std::time::Duration;

use super::fleet::Fleet;
use super::member::Member;
use crate::classify::Outcome;

/// A call to an instance, from the pick to its end.
///
/// Dropped without an outcome it was cancelled; dropped by a panic while it was polled it failed.
#[derive(Debug)]
pub(super) struct Flight<S> {
    fleet: Arc<Fleet<S>>,
    pub(super) member: Arc<Member<S>>,
    pub(super) started: Duration,
    /// The member's, when the call began.
    pub(super) generation: u32,
    /// Whether it is the one call that tries an ejected instance.
    pub(super) is_probe: bool,
    polling: bool,
    outcome: Option<Outcome>,
}

impl<S> Flight<S> {
    pub(super) fn begin(
        fleet: &Arc<Fleet<S>>,
        member: &Arc<Member<S>>,
        started: Duration,
        is_probe: bool,
    ) -> Self {
        member.begin();
        Self {
            fleet: fleet.clone(),
            member: member.clone(),
            started,
            generation: member.generation(),
            is_probe,
            polling: false,
            outcome: None,
        }
    }

    /// Says whether foreign code runs: if it panics, the flag stays up.
    pub(super) fn set_polling(&mut self, polling: bool) {
        self.polling = polling;
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl<S> Drop for Flight<S> {
    fn drop(&mut self) {
        let panicked = self.polling.then_some(Outcome::Failure);
        let outcome = self.outcome.or(panicked);
        self.member.end();
        self.fleet.record(self, outcome);
    }
}
