//! Power of two choices.
