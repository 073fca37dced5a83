use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::str::FromStr;
use std::sync::LazyLock;

/// How much a call matters. Under overload the lowest are shed first.
///
/// Each level leaves a tenth of the limit to those above it, and stands behind them in the queue. A request may carry it
/// as an extension, and a header may carry it from hop to hop: its text is `low`, `normal`, `high` or `critical`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody will notice: prefetching, batches that run again.
    Low,
    /// What is not said otherwise.
    #[default]
    Normal,
    /// A user waits.
    High,
    /// Must not fail: payments, health of the system itself. Keep it rare.
    Critical,
}

impl Priority {
    const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Its text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| text.eq_ignore_ascii_case(it.as_str()))
            .ok_or(UnknownPriority)
    }
}

/// A text that is no [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPriority;

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a priority must be `low`, `normal`, `high` or `critical`")
    }
}

impl Error for UnknownPriority {}

/// Says how much a request matters; a closure will do.
pub trait Prioritise<Req> {
    /// The priority of `request`.
    fn priority(&self, request: &Req) -> Priority;

    /// Whose it is, where callers of equal priority take turns. Default: nobody's, and who comes first is served first.
    fn caller(&self, _: &Req) -> Option<u64> {
        None
    }
}

impl<F, Req> Prioritise<Req> for F
where
    F: Fn(&Req) -> Priority,
{
    fn priority(&self, request: &Req) -> Priority {
        self(request)
    }
}

/// The default: every call may use the whole limit, and waits in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllEqual;

impl<Req> Prioritise<Req> for AllEqual {
    fn priority(&self, _: &Req) -> Priority {
        Priority::Critical
    }
}

/// Callers of equal priority take turns; see [`ConcurrencyLayer::fair_by`](super::ConcurrencyLayer::fair_by).
#[derive(Clone, Debug)]
pub struct Fair<P, F> {
    priority: P,
    caller: F,
}

impl<P, F> Fair<P, F> {
    pub(super) fn new(priority: P, caller: F) -> Self {
        Self { priority, caller }
    }
}

impl<P, F, K, Req> Prioritise<Req> for Fair<P, F>
where
    P: Prioritise<Req>,
    F: Fn(&Req) -> K,
    K: Hash,
{
    fn priority(&self, request: &Req) -> Priority {
        self.priority.priority(request)
    }

    fn caller(&self, request: &Req) -> Option<u64> {
        Some(SEED.hash_one((self.caller)(request)))
    }
}

/// Nobody can choose to be taken for somebody else.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
