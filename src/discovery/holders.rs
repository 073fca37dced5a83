use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;

/// Who holds a service: so many, or nobody any more and for good.
#[derive(Debug)]
pub(super) struct Holders {
    count: Mutex<Option<usize>>,
    /// Told when the first comes or the last goes.
    changed: Notify,
}

impl Holders {
    /// Counts one more; `false` if it has ended.
    pub(super) fn join(&self) -> bool {
        let mut holders = self.count();
        if let Some(count) = &mut *holders {
            *count += 1;
            self.changed.notify_one();
        }
        holders.is_some()
    }

    /// Counts one less, and says whether that was the last one and it ends at once, since it is not `wanted`.
    pub(super) fn leave(&self, wanted: bool) -> bool {
        let mut holders = self.count();
        if let Some(count) = &mut *holders {
            *count -= 1;
            self.changed.notify_one();
        }
        let ends = *holders == Some(0) && !wanted;
        if ends {
            *holders = None;
        }
        ends
    }

    /// Ends it if nobody holds it, and says whether it has ended.
    pub(super) fn end(&self) -> bool {
        let mut holders = self.count();
        if *holders == Some(0) {
            *holders = None;
        }
        holders.is_none()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.count().is_none()
    }

    /// Waits until nobody has held it for a while, and ends it.
    pub(super) async fn abandoned(&self) {
        loop {
            if self.is_held() {
                self.changed.notified().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = clock::sleep(IDLE) => {
                    if self.end() {
                        return;
                    }
                }
            }
        }
    }

    fn is_held(&self) -> bool {
        self.count().is_some_and(|count| count > 0)
    }

    fn count(&self) -> MutexGuard<'_, Option<usize>> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Holders {
    /// One, who began it.
    fn default() -> Self {
        Self {
            count: Mutex::new(Some(1)),
            changed: Notify::new(),
        }
    }
}

/// Who asks anew for each call, or is replaced by another, finds the instances at hand and has no first answer to wait
/// for.
const IDLE: Duration = Duration::from_secs(60);
