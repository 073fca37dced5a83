use std::sync::Arc;
use std::time::Instant;

use crate::algo::budget::Budget;

/// How many retries the traffic pays for, over the last ten seconds: the first attempts that ended in them, save those
/// that a layer inside refused. Clones share it.
///
/// Each layer has one of its own, shared by all services made from that layer and from its clones. Several layers
/// share one if they are given clones of it, which is right where they call the same peer.
///
/// The default allows a fifth of the first attempts or 3 a second, whichever is more: a fifth is load that a peer in
/// trouble can bear, and the floor lets a client with little traffic retry at all.
#[derive(Clone, Debug)]
pub struct RetryBudget(Arc<Budget>);

impl RetryBudget {
    /// A budget of `share` retries for each first attempt (0.2 is a fifth), and of `floor` a second, whichever is
    /// more.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        Self(Arc::new(Budget::new(share, floor)))
    }

    #[inline]
    pub(super) fn deposit(&self, now: Instant) {
        self.0.deposit(now);
    }

    pub(super) fn withdraw(&self, now: Instant) -> Option<Token> {
        self.0.withdraw(now).then(|| Token {
            budget: self.clone(),
            taken: now,
            spent: false,
        })
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(0.2, 3)
    }
}

/// The right to one more attempt. Unless it is spent it goes back into the budget.
#[derive(Debug)]
pub(super) struct Token {
    budget: RetryBudget,
    taken: Instant,
    pub(super) spent: bool,
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.spent {
            self.budget.0.refund(self.taken);
        }
    }
}
