use std::convert::Infallible;
use std::time::Duration;

use buttress::algo::breaker::State;
use buttress::clock;
use buttress::discovery::Freshness;

use crate::fleet::Monitored;
use crate::stats::{Stats, Tally};

/// Prints a line a second to the standard error. Runs until it is dropped.
pub async fn report(stats: &Stats, clients: impl Fn() -> Vec<Monitored>) -> Infallible {
    let begun = clock::now();
    eprintln!("{HEADER}");
    loop {
        clock::sleep(Duration::from_secs(1)).await;
        let seconds = (clock::now() - begun).as_secs();
        let [protected, plain] = stats.take_latest();
        let status = Status::of(&clients());
        eprintln!(
            "{seconds:>4} s │ {} │ {} │ {:>5} {:>8}  {:<9} │ {}",
            figures(&protected),
            figures(&plain),
            status.open_breakers,
            status.ejected,
            status.registry,
            stats.phase(),
        );
    }
}

/// What the protected clients see.
struct Status {
    open_breakers: usize,
    ejected: usize,
    registry: &'static str,
}

impl Status {
    fn of(clients: &[Monitored]) -> Self {
        let mut status = Self {
            open_breakers: 0,
            ejected: 0,
            registry: "fresh",
        };
        for handle in clients.iter().flat_map(Monitored::handles) {
            let open = handle.breaker().state() == State::Open;
            status.open_breakers += usize::from(open);
            let instances = handle.instances();
            status.ejected += instances
                .iter()
                .filter(|view| view.ejected_until.is_some())
                .count();
            if !matches!(handle.watch().freshness(), Freshness::Fresh) {
                status.registry = "stale";
            } else if !handle.watch().snapshot().held().is_empty() {
                status.registry = "guarded";
            }
        }
        status
    }
}

fn figures(tally: &Tally) -> String {
    format!(
        "{:>4}/s {:>5.1} % {:>4} {:>5} ms",
        tally.trips,
        100.0 * tally.success(),
        tally.quantile(0.5).as_millis(),
        tally.quantile(0.99).as_millis(),
    )
}

const HEADER: &str = "       │ buttress                    │ plain reqwest, round robin  │ open  ejected            │
  time │ trips  success   p50    p99 │ trips  success   p50    p99 │ breakers      registry   │ phase";
