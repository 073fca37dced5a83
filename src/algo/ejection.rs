//! Ejection of an instance that keeps failing, and its way back.
