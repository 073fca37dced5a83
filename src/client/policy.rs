use std::time::Duration;

use crate::algo::backoff::Backoff;
use crate::algo::breaker;
use crate::algo::ejection;

/// How calls to one service are protected. Each default has its [reason](crate::docs::defaults).
///
/// ```
/// use std::time::Duration;
/// use buttress::client::Policy;
///
/// let policy = Policy::new()
///     .timeout(Duration::from_secs(2))
///     .attempt_timeout(Duration::from_millis(500))
///     .attempts(3);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) timeout: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) outstanding: usize,
    pub(super) queue: Option<(usize, Duration)>,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) breaker: breaker::Settings,
    pub(super) ejection: ejection::Settings,
}

impl Policy {
    /// The defaults: 10 s in all, 3 s an attempt, 3 attempts, 256 calls outstanding, breaker and ejection on.
    pub fn new() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            outstanding: 256,
            queue: None,
            attempts: 3,
            backoff: Backoff::default(),
            breaker: breaker::Settings::default(),
            ejection: ejection::Settings::default(),
        }
    }

    /// The longest a call may take with all its attempts and waits, to the end of the answer's body.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// The longest an attempt may take until the head of the answer is there. Past it the attempt counts as failed.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = limit;
        self
    }

    /// How many calls may be outstanding at once; more are refused.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[must_use]
    #[track_caller]
    pub fn outstanding(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "a limit of 0 outstanding calls would refuse every call"
        );
        self.outstanding = limit;
        self
    }

    /// Lets up to `length` further calls wait up to `longest` for a place, first come first served.
    #[must_use]
    pub fn queue(mut self, length: usize, longest: Duration) -> Self {
        self.queue = Some((length, longest));
        self
    }

    /// How often a call is tried at most, the first time included.
    ///
    /// # Panics
    ///
    /// If `attempts` is 0.
    #[must_use]
    #[track_caller]
    pub fn attempts(mut self, attempts: u32) -> Self {
        assert!(
            attempts > 0,
            "attempts(0): a call needs at least one attempt"
        );
        self.attempts = attempts;
        self
    }

    /// How long to wait between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// When the service's circuit breaker opens and closes.
    #[must_use]
    pub fn breaker(mut self, settings: breaker::Settings) -> Self {
        self.breaker = settings;
        self
    }

    /// When an instance that keeps failing is left out, and for how long.
    #[must_use]
    pub fn ejection(mut self, settings: ejection::Settings) -> Self {
        self.ejection = settings;
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}
