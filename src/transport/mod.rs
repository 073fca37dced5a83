//! Where foreign crates meet ours: one module and one feature each.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
mod hyper;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "tonic")]
pub mod tonic;

/// Whether it is this process that is at fault, in its set-up or its code, so that coming back does not help.
#[cfg(any(feature = "axum", feature = "tonic"))]
fn is_our_fault(rejected: &crate::error::Rejected) -> bool {
    use crate::error::Reason;

    matches!(
        rejected.reason(),
        Reason::Panicked | Reason::NotInAnswer | Reason::NoService | Reason::TlsNotSetUp
    )
}
