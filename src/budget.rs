//! How many further attempts the traffic pays for: retries, hedges, or both together.
//!
//! ```
//! use std::time::Duration;
//! use buttress::BoxError;
//! use buttress::budget::RetryBudget;
//! use buttress::layers::hedge::HedgeLayer;
//! use buttress::layers::retry::RetryLayer;
//! use tower::ServiceBuilder;
//!
//! // Retries and hedges together make a fifth more calls at most.
//! let budget = RetryBudget::default();
//! let orders = ServiceBuilder::new()
//!     .layer(RetryLayer::new(3).budget(budget.clone()))
//!     .layer(HedgeLayer::new(Duration::from_millis(80)).budget(budget.without_deposits()))
//!     .service_fn(|id: u64| async move { Ok::<_, BoxError>(id) });
//! ```

use std::sync::Arc;
use std::time::Instant;

use crate::algo::budget::Budget;

/// How many further attempts the traffic pays for, over the last ten seconds: the first attempts that ended in them, save
/// those that a layer inside refused. Clones share it.
///
/// Each layer has one of its own, shared by all services made from that layer and from its clones. Several layers
/// share one if they are given clones of it, which is right where they call the same peer.
///
/// The default allows a fifth of the first attempts or 3 a second, whichever is more: a fifth is load that a peer in
/// trouble can bear, and the floor lets a client with little traffic retry at all.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    budget: Arc<Budget>,
    deposits: bool,
}

impl RetryBudget {
    /// A budget of `share` further attempts for each first one (0.2 is a fifth), and of `floor` a second, whichever
    /// is more.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        Self {
            budget: Arc::new(Budget::new(share, floor)),
            deposits: true,
        }
    }

    /// The same budget for the inner of two layers that a call passes one after the other: it is spent there, and
    /// the call is counted once, by the outer.
    #[must_use]
    pub fn without_deposits(&self) -> Self {
        Self {
            budget: Arc::clone(&self.budget),
            deposits: false,
        }
    }

    /// Counts a first attempt.
    pub(crate) fn deposit(&self, now: Instant) {
        if self.deposits {
            self.budget.deposit(now);
        }
    }

    /// Takes the right to a further attempt, if there is one left.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Token> {
        self.budget.withdraw(now).then(|| Token {
            budget: Arc::clone(&self.budget),
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
pub(crate) struct Token {
    budget: Arc<Budget>,
    taken: Instant,
    pub(crate) spent: bool,
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.spent {
            self.budget.refund(self.taken);
        }
    }
}
