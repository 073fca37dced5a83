//! Waits between attempts.
