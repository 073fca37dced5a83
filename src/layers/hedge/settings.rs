use super::Delay;
use crate::budget::{Account, RetryBudget};

/// What a [`HedgeLayer`](super::HedgeLayer) is told, what it asks others apart.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) delay: Delay,
    pub(super) attempts: u32,
    pub(super) account: Account,
}

impl Settings {
    pub(super) fn new(delay: Delay) -> Self {
        Self {
            delay,
            attempts: ATTEMPTS,
            account: Account::new("hedge", RetryBudget::new(SHARE, FLOOR)),
        }
    }
}

const ATTEMPTS: u32 = 2;
const SHARE: f64 = 0.05;
const FLOOR: u32 = 1;
