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

mod account;

use std::sync::Arc;
use std::time::Instant;

use crate::algo::budget::{Budget, InFlight};
use crate::algo::tick::Moment;
use crate::clock;

pub(crate) use account::{Account, Paid};

/// How many further attempts the traffic pays for: that of the last ten seconds, or that which is under way. Clones share
/// it.
///
/// Each layer has one of its own, shared by all services made from that layer and from its clones. Several layers
/// share one if they are given clones of it, which is right where they call the same peer.
///
/// The default allows a fifth of the first attempts of the last ten seconds or 3 a second, whichever is more: a fifth is
/// load that a peer in trouble can bear, and the floor lets a client with little traffic retry at all.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    form: Form,
    counts_calls: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Recent(Arc<Budget>),
    InFlight(Arc<InFlight>),
}

impl RetryBudget {
    /// A budget of `share` further attempts for each first one (0.2 is a fifth), and of `floor` a second, whichever
    /// is more, over the last ten seconds. First attempts count when they end, save those that a layer inside refused.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn new(share: f64, floor: u32) -> Self {
        Self::of(Form::Recent(Arc::new(Budget::new(share, floor))))
    }

    /// A budget that remembers nothing: there may be a further attempt while those under way are no more than a `share` of
    /// all calls under way (0.2 is a fifth), or fewer than `floor`. It is looked at before, so that there may be one more
    /// than the share, unless that is 0. So it bounds what a peer has to bear at once, where calls last long; a
    /// peer that fails fast sees as many retries as there is room for one after the other.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn in_flight(share: f64, floor: u32) -> Self {
        Self::of(Form::InFlight(Arc::new(InFlight::new(share, floor))))
    }

    fn of(form: Form) -> Self {
        Self {
            form,
            counts_calls: true,
        }
    }

    /// How many further attempts it allows for each first one, or for each call under way.
    pub fn share(&self) -> f64 {
        match &self.form {
            Form::Recent(budget) => budget.share(),
            Form::InFlight(budget) => budget.share(),
        }
    }

    /// How many it allows in any case: a second, or at once.
    pub fn floor(&self) -> u32 {
        match &self.form {
            Form::Recent(budget) => budget.floor(),
            Form::InFlight(budget) => budget.floor(),
        }
    }

    /// How many further attempts it would allow now: [`u32::MAX`] where there is no bound, because as many as the calls
    /// under way are allowed.
    pub fn available(&self) -> u32 {
        match &self.form {
            Form::Recent(budget) => budget.available(clock::now()),
            Form::InFlight(budget) => budget.available(),
        }
    }

    /// Changes the share and the floor for all who share the budget, calls under way among them. What was counted stays.
    /// With 0.0 and 0 there are no further attempts, save those that wait or are under way already.
    ///
    /// # Panics
    ///
    /// If `share` is negative or not finite.
    #[track_caller]
    pub fn reconfigure(&self, share: f64, floor: u32) {
        match &self.form {
            Form::Recent(budget) => budget.reconfigure(share, floor),
            Form::InFlight(budget) => budget.reconfigure(share, floor),
        }
    }

    /// The same budget for the inner of two layers that a call passes one after the other: it is spent there, and
    /// the call is counted once, by the outer.
    #[must_use]
    pub fn without_deposits(&self) -> Self {
        Self {
            counts_calls: false,
            ..self.clone()
        }
    }

    /// Counts a call as under way for as long as this is kept, where the budget counts those.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Option<Underway> {
        match &self.form {
            Form::InFlight(budget) if self.counts_calls => {
                budget.begin();
                Some(Underway(Arc::clone(budget)))
            }
            _ => None,
        }
    }

    /// Whether it has no use for calls under way.
    #[inline(always)]
    pub(crate) fn counts_the_past(&self) -> bool {
        matches!(self.form, Form::Recent(_))
    }

    /// Counts a first attempt that the peer saw.
    #[inline(always)]
    pub(crate) fn deposit(&self, now: Moment) {
        if let (Form::Recent(budget), true) = (&self.form, self.counts_calls) {
            budget.deposit_at(now);
        }
    }

    /// Takes the right to a further attempt, if there is one left.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Token> {
        let allowed = match &self.form {
            Form::Recent(budget) => budget.withdraw(now),
            Form::InFlight(budget) => budget.withdraw(),
        };
        allowed.then(|| Token {
            form: self.form.clone(),
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

/// A call under way, where that is what the budget counts.
#[derive(Debug)]
pub(crate) struct Underway(Arc<InFlight>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The right to one more attempt, to be kept until that has ended. Unless it is spent it goes back into the budget.
#[derive(Debug)]
pub(crate) struct Token {
    form: Form,
    taken: Instant,
    pub(crate) spent: bool,
}

impl Drop for Token {
    fn drop(&mut self) {
        match &self.form {
            Form::Recent(budget) if !self.spent => budget.refund(self.taken),
            Form::Recent(_) => {}
            Form::InFlight(budget) => budget.release(),
        }
    }
}
