//! The layers. Each stands alone; `docs/order.md` in the repository says how they stack.

pub mod bulkhead;
pub mod circuit_breaker;
pub mod coalesce;
pub mod fallback;
pub mod hedge;
pub mod retry;
pub mod timeout;
