//! The circuit_breaker layer.
