//! The layers. Each stands alone; `docs/order.md` in the repository says how they stack.

pub mod bulkhead;
pub mod circuit_breaker;
pub mod fallback;
pub mod retry;
pub mod timeout;
