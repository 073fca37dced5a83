use std::sync::{Arc, Weak};
use std::time::Duration;

use buttress::clock;
use tokio::runtime;

use crate::stats::Stats;

/// Watches for as long as `stats` lives, from a thread of its own, how late the machine is: a timer that goes off late
/// there was held up by whatever else the machine does, and not by the application.
pub fn watch(stats: &Arc<Stats>) -> std::io::Result<()> {
    let stats = Arc::downgrade(stats);
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name("stalls".into())
        .spawn(move || {
            runtime.block_on(note(stats));
        })?;
    Ok(())
}

async fn note(stats: Weak<Stats>) {
    while let Some(stats) = stats.upgrade() {
        let before = clock::now();
        clock::sleep(TICK).await;
        stats.stalled((clock::now() - before).saturating_sub(TICK));
    }
}

const TICK: Duration = Duration::from_millis(5);
