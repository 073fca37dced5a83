//! The layers. Each stands alone; the guide says [in which order](crate::docs::order) they stack.

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
