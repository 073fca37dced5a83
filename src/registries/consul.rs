//! consul.
