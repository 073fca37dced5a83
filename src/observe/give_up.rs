/// Why a call that was to be tried again is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// The attempts that are allowed were made.
    AttemptsUsedUp,
    /// The budget is spent.
    BudgetExhausted,
    /// The retry's limit or the deadline leaves no time for another attempt, or for the wait that the peer asked for.
    OutOfTime,
    /// The peer asked to be left alone for longer than the retry waits.
    HintTooLong,
    /// A layer inside refused the next attempt, or the service did not become ready for it.
    Refused,
}
