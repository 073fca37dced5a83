//! The layers. Each stands alone; [`docs::order`](crate) says how they stack.

pub mod bulkhead;
pub mod chaos;
pub mod circuit_breaker;
pub mod fallback;
pub mod rate_limit;
pub mod retry;
pub mod timeout;
