//! Picks the instance for each call.
