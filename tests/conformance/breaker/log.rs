use std::sync::{Arc, Mutex};

use buttress::algo::breaker::{Condition, State};
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::observe::{Event, Observe};
use buttress::{BoxError, Outcome};

use super::settings::Rule;

/// Takes the outcome that was sent for the result, and notes it, for that is where calls can be followed one by one.
pub(super) fn classifier(
    rule: &Rule,
    breaker: &CircuitBreaker,
    log: &Log,
) -> impl Fn(Result<&Outcome, &BoxError>) -> Outcome + Clone + use<> {
    let (slow_calls_alone, breaker, log) = (rule.slow_calls_alone, breaker.clone(), log.clone());
    move |result| {
        let outcome = match result {
            Ok(Outcome::Failure) if slow_calls_alone => Outcome::Success,
            Ok(outcome) => *outcome,
            // A refusal by a breaker further in.
            Err(_) => return Outcome::Ignored,
        };
        // A breaker that is switched off counts nothing.
        if breaker.state() != State::Disabled {
            log.note(match outcome {
                Outcome::Success => "success".to_owned(),
                Outcome::Ignored => "ignored_error".to_owned(),
                Outcome::Failure | Outcome::Overload(_) => "error".to_owned(),
            });
        }
        outcome
    }
}

/// What was told, in the words of the vectors.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(super) fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observe for Log {
    fn on_event(&self, event: &Event<'_>) {
        self.note(match event {
            Event::Refused(_) => "not_permitted".to_owned(),
            Event::Tripped { condition, .. } => match condition {
                Condition::FailureRate => "failure_rate_exceeded".to_owned(),
                Condition::SlowCallRate => "slow_call_rate_exceeded".to_owned(),
                other => format!("{other:?}"),
            },
            Event::StateChanged { from, to, .. } => {
                format!("transition:{}>{}", word(*from), word(*to))
            }
            other => format!("{other:?}"),
        });
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::Disabled => "disabled",
        State::MetricsOnly => "metrics_only",
    }
}
