//! The layers. Each stands alone; [`docs::order`](crate) says how they stack.

pub mod bulkhead;
pub mod circuit_breaker;
pub mod concurrency;
pub mod fallback;
pub mod retry;
pub mod throttle;
pub mod timeout;
