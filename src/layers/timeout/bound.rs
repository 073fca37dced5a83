use std::time::{Duration, Instant};

use crate::clock;
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::observe::Who;

/// When a call ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) at: Instant,
    /// The layer's own, unless the end is that of a deadline.
    pub(super) limit: Option<Duration>,
}

impl Bound {
    /// The end of a call that has `left` of `limit`, if the deadline is not before it.
    #[inline(always)]
    pub(super) fn new(
        now: Instant,
        left: Duration,
        limit: Duration,
        deadline: Option<Deadline>,
    ) -> Self {
        let own = Self {
            at: clock::after(now, left),
            limit: Some(limit),
        };
        match deadline {
            Some(deadline) if deadline.instant() <= own.at => Self {
                at: deadline.instant(),
                limit: None,
            },
            _ => own,
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self.limit {
            Some(after) => Reason::TimedOut { after },
            None => Reason::DeadlineExceeded,
        }
    }
}

/// A refusal in the name of `who`. That of an attempt is told apart from that of the whole call, which has the same name.
pub(super) fn rejected(who: &Who, reason: Reason) -> Rejected {
    let instance = who.known().and_then(|it| it.instance.as_ref());
    let layer = instance.map_or("timeout", |_| "attempt timeout");
    who.sign(Rejected::new(layer, reason))
}
