use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The share and the floor of a budget, which can be changed while it is in use.
///
/// Who reads them beside a change may meet one as it was and the other as it will be. More is allowed the higher each is,
/// so that is no more than the more generous of both settings allows.
#[derive(Debug)]
pub(super) struct Settings {
    /// The bits of a float.
    share: AtomicU64,
    floor: AtomicU32,
}

impl Settings {
    #[track_caller]
    pub(super) fn new(share: f64, floor: u32) -> Self {
        assert_share(share);
        Self {
            share: AtomicU64::new(share.to_bits()),
            floor: AtomicU32::new(floor),
        }
    }

    #[track_caller]
    pub(super) fn change(&self, share: f64, floor: u32) {
        assert_share(share);
        self.share.store(share.to_bits(), Relaxed);
        self.floor.store(floor, Relaxed);
    }

    pub(super) fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Relaxed))
    }

    pub(super) fn floor(&self) -> u32 {
        self.floor.load(Relaxed)
    }
}

#[track_caller]
fn assert_share(share: f64) {
    assert!(
        share.is_finite() && share >= 0.0,
        "the share of a retry budget must not be {share}"
    );
}
