//! Where foreign crates meet ours.
