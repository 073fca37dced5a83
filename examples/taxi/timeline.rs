use std::time::Duration;

use buttress::{BoxError, clock};

use crate::fault::Fault;
use crate::fleet::{Fleet, SERVICES};
use crate::registry::{ALL, TaxiRegistry};
use crate::stats::Stats;

/// What goes wrong during a phase. What it breaks is mended at its end.
#[derive(Clone, Copy)]
pub enum Trouble {
    None,
    Kill(&'static str, &'static str),
    Fault(&'static str, &'static str, Fault),
    RestartZone(&'static str),
    StopRegistry,
    StartRegistry,
}

/// The phases, their names and what share of the time each takes, in hundredths.
pub const PHASES: [(&str, Trouble, u32); 8] = [
    (HEALTHY, Trouble::None, 14),
    ("trips-a is killed", Trouble::Kill("trips", "a"), 12),
    (
        "pricing-b is slow",
        Trouble::Fault("pricing", "b", Fault::Slow(Duration::from_millis(400))),
        12,
    ),
    (
        "passengers-c answers 500",
        Trouble::Fault("passengers", "c", Fault::Fails),
        12,
    ),
    (
        "passengers-a hangs",
        Trouble::Fault("passengers", "a", Fault::Hangs),
        12,
    ),
    ("zone b restarts", Trouble::RestartZone("b"), 14),
    ("registry is stopped", Trouble::StopRegistry, 12),
    ("registry is back, empty", Trouble::StartRegistry, 12),
];

pub const HEALTHY: &str = "healthy";

/// Before the first phase, while connections are made. Not in the report.
pub const WARMING_UP: &str = "warming up";

impl Trouble {
    /// Whether the registry alone is at fault.
    pub fn is_registry(self) -> bool {
        matches!(self, Self::StopRegistry | Self::StartRegistry)
    }
}

/// Runs every phase.
pub async fn run(
    fleet: &Fleet,
    registry: &TaxiRegistry,
    stats: &Stats,
    length: Duration,
) -> Result<(), BoxError> {
    for (name, trouble, share) in PHASES {
        if trouble.is_registry() && !registry.can_stop() {
            eprintln!("      left out: {name}; --registry-stop and --registry-start say how");
            continue;
        }
        stats.begin_phase(name);
        phase(fleet, registry, trouble, length * share / 100).await?;
    }
    Ok(())
}

async fn phase(
    fleet: &Fleet,
    registry: &TaxiRegistry,
    trouble: Trouble,
    length: Duration,
) -> Result<(), BoxError> {
    match trouble {
        Trouble::None => clock::sleep(length).await,
        Trouble::Kill(service, zone) => {
            fleet.kill(service, zone);
            clock::sleep(length).await;
            fleet.start(service, zone).await?;
        }
        Trouble::Fault(service, zone, fault) => {
            fleet.set_fault(service, zone, fault);
            clock::sleep(length).await;
            fleet.set_fault(service, zone, Fault::None);
        }
        Trouble::RestartZone(zone) => {
            SERVICES
                .iter()
                .for_each(|service| fleet.kill(service, zone));
            clock::sleep(length / 2).await;
            for service in SERVICES {
                fleet.start(service, zone).await?;
            }
            clock::sleep(length / 2).await;
        }
        Trouble::StopRegistry => {
            registry.stop().await?;
            clock::sleep(length).await;
        }
        Trouble::StartRegistry => {
            registry.start().await?;
            clock::sleep(length).await;
            all_registered(registry).await?;
        }
    }
    Ok(())
}

/// Waits until the registry names every instance.
pub async fn all_registered(registry: &TaxiRegistry) -> Result<(), BoxError> {
    let deadline = clock::now() + LONGEST_START;
    loop {
        let found = registry.count().await;
        let said = match found {
            Ok(ALL) => return Ok(()),
            Ok(found) => format!("it names {found}"),
            Err(error) => error.to_string(),
        };
        if clock::now() > deadline {
            return Err(format!("not all {ALL} instances are in the registry: {said}").into());
        }
        eprintln!("      waiting for {ALL} instances in the registry: {said}");
        clock::sleep(Duration::from_secs(1)).await;
    }
}

/// A registry written in Java takes its time.
const LONGEST_START: Duration = Duration::from_secs(120);
