use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{RetryBudget, Token, Underway};
use crate::algo::tick::Moment;
use crate::deadline::Deadline;
use crate::observe::{Event, GiveUp, Observer};

/// Who makes further attempts, out of which budget, and who is told.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: Arc<str>,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) observer: Observer,
}

/// What an attempt took from the budget, if there is one.
pub(crate) type Paid = Option<Token>;

impl Account {
    pub(crate) fn new(name: &str, budget: RetryBudget) -> Self {
        Self {
            name: Arc::from(name),
            budget: Some(budget),
            observer: Observer::default(),
        }
    }

    /// Counts a call as under way for as long as this is kept, where the budget counts those.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Option<Underway> {
        self.budget.as_ref().and_then(RetryBudget::begin)
    }

    /// Whether it has no use for calls under way.
    #[inline(always)]
    pub(crate) fn counts_the_past(&self) -> bool {
        self.budget
            .as_ref()
            .is_none_or(RetryBudget::counts_the_past)
    }

    /// Counts a first attempt that the peer saw.
    #[inline(always)]
    pub(crate) fn deposit(&self, now: Moment) {
        if let Some(budget) = &self.budget {
            budget.deposit(now);
        }
    }

    /// Pays for an attempt that begins after `wait`, unless it must not be made, since the deadline would have passed or
    /// the budget is spent.
    pub(crate) fn pay(&self, now: Instant, wait: Duration) -> Result<Paid, GiveUp> {
        if Deadline::current().is_some_and(|deadline| deadline.remaining(now) <= wait) {
            return Err(GiveUp::OutOfTime);
        }
        let Some(budget) = &self.budget else {
            return Ok(None);
        };
        // Last, so that no token is taken for an attempt that something else forbids.
        let token = budget.withdraw(now);
        if token.is_none() {
            let retry = &*self.name;
            self.observer.emit(&Event::BudgetExhausted { retry });
            return Err(GiveUp::BudgetExhausted);
        }
        Ok(token)
    }
}
