//! Sliding windows of outcomes.
