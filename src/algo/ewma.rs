//! Peak-EWMA latency.
