//! States, conditions and reasons in one word each, as labels and fields want them.

use super::GiveUp;
use crate::algo::breaker::{Condition, State};
use crate::error::Reason;

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::Disabled => "disabled",
        State::MetricsOnly => "metrics_only",
    }
}

pub(super) fn condition(condition: Condition) -> &'static str {
    match condition {
        Condition::FailureRate => "failure_rate",
        Condition::SlowCallRate => "slow_call_rate",
        Condition::ConsecutiveFailures => "consecutive_failures",
        Condition::FailureCount => "failure_count",
        Condition::Asked => "asked",
    }
}

pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::TimedOut { .. } => "timed_out",
        Reason::DeadlineExceeded => "deadline_exceeded",
        Reason::Full { .. } => "full",
        Reason::QueueFull { .. } => "queue_full",
        Reason::WaitedTooLong { .. } => "waited_too_long",
        Reason::RateLimited => "rate_limited",
        Reason::CostAboveBurst { .. } => "cost_above_burst",
        Reason::StoreUnavailable => "store_unavailable",
        Reason::Throttled => "throttled",
        Reason::Open => "open",
        Reason::HalfOpen => "half_open",
        Reason::ForcedOpen => "forced_open",
        Reason::Panicked => "panicked",
        Reason::NotInAnswer => "not_in_answer",
        Reason::Unresolved => "unresolved",
        Reason::NoInstance => "no_instance",
        Reason::NoService => "no_service",
        Reason::BadAddress => "bad_address",
        Reason::TlsNotSetUp => "tls_not_set_up",
    }
}

pub(super) fn give_up(reason: GiveUp) -> &'static str {
    match reason {
        GiveUp::AttemptsUsedUp => "attempts_used_up",
        GiveUp::BudgetExhausted => "budget_exhausted",
        GiveUp::OutOfTime => "out_of_time",
        GiveUp::HintTooLong => "hint_too_long",
        GiveUp::Refused => "refused",
    }
}
