use std::time::Duration;

use tokio::sync::watch;

use crate::clock;

/// Who holds a service: so many, or nobody any more and for good.
#[derive(Debug)]
pub(super) struct Holders(watch::Sender<Option<usize>>);

impl Holders {
    /// Counts one more; `false` if it has ended.
    pub(super) fn join(&self) -> bool {
        self.0.send_if_modified(|holders| {
            if let Some(count) = holders {
                *count += 1;
            }
            holders.is_some()
        })
    }

    /// Counts one less, and says whether that was the last one and it ends at once, since it is not `wanted`.
    pub(super) fn leave(&self, wanted: bool) -> bool {
        let mut ends = false;
        self.0.send_modify(|holders| {
            if let Some(count) = holders {
                *count -= 1;
                ends = *count == 0 && !wanted;
            }
            if ends {
                *holders = None;
            }
        });
        ends
    }

    /// Ends it if nobody holds it, and says whether it has ended.
    pub(super) fn end(&self) -> bool {
        self.0.send_if_modified(|holders| {
            if *holders == Some(0) {
                *holders = None;
            }
            holders.is_none()
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Waits until nobody has held it for a while, and ends it.
    pub(super) async fn abandoned(&self) {
        let mut holders = self.0.subscribe();
        // The sender is in `self`, so that no wait can fail.
        loop {
            let _ = holders.wait_for(|&holders| holders.unwrap_or(0) == 0).await;
            tokio::select! {
                biased;
                _ = holders.wait_for(|&holders| holders.unwrap_or(0) > 0) => {}
                () = clock::sleep(IDLE) => {
                    if self.end() {
                        return;
                    }
                }
            }
        }
    }
}

impl Default for Holders {
    /// One, who began it.
    fn default() -> Self {
        Self(watch::Sender::new(Some(1)))
    }
}

/// Who asks anew for each call, or is replaced by another, finds the instances at hand and not the registry's first
/// answer to wait for.
const IDLE: Duration = Duration::from_secs(60);
