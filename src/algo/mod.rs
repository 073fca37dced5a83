//! Decisions only: state machines, windows, limits, budgets, picks.
//!
//! Nothing here logs, locks, sleeps or reads a clock. Time and chance are arguments, and what happened is returned.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod ewma;
pub(crate) mod lanes;
pub mod pick;
mod rng;
pub mod window;

pub use rng::Rng;
