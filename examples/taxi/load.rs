use std::time::Duration;

use buttress::algo::Rng;
use buttress::rng::ThreadRng;
use tokio::time::MissedTickBehavior;

use crate::calls::Calls;
use crate::services::TripRequest;
use crate::stats::Path;

/// Books `rate` trips a second each way, whether or not earlier ones have ended. Runs until it is dropped.
pub async fn generate(calls: Calls, rate: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticks.tick().await;
        for path in Path::BOTH {
            tokio::spawn(book(calls.clone(), path, number));
        }
    }
}

async fn book(calls: Calls, path: Path, number: u64) {
    let wanted = TripRequest {
        id: format!("{}-{number}", path.as_str()),
        passenger: number,
        km: 1 + ThreadRng.below(20) as u64,
    };
    let begun = calls.stats.begin_trip(path);
    let answer = calls
        .post(path, "http://trips/trips", &wanted.id, &wanted)
        .await;
    calls.stats.end_trip(path, begun, answer.is_ok());
}
