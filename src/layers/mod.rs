//! The layers. Each stands alone; `docs/order.md` in the repository says how they stack.

pub mod bulkhead;
pub mod chaos;
pub mod circuit_breaker;
pub mod coalesce;
pub mod concurrency;
pub mod fallback;
pub mod hedge;
pub mod rate_limit;
pub mod retry;
pub mod throttle;
pub mod timeout;
