//! The layers. Each stands alone; the guide says [in which order](crate::docs::order) they stack.

pub mod bulkhead;
pub mod circuit_breaker;
pub mod fallback;
pub mod retry;
pub mod timeout;
