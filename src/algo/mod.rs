//! Decisions only: state machines, windows, limits, budgets, picks.
//!
//! Nothing here logs, locks, sleeps or reads a clock. Time and chance are arguments, and what happened is returned.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod cache;
pub mod codel;
pub mod ejection;
pub mod ewma;
pub mod faults;
mod function;
pub mod gcra;
pub(crate) mod lanes;
pub mod limit;
pub mod pick;
pub mod quantile;
mod rng;
pub mod throttle;
pub(crate) mod tick;
pub mod window;

pub use rng::{Rng, Seeded};
