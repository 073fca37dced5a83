//! The ride-hailing application: four services of three instances each, which find each other by name and lose no trip
//! while instances and the registry fail.
//!
//! ```text
//! load ──POST /trips──▶ trips ──▶ passengers      who is it?            request and response
//!                             ├─▶ pricing         what does it cost?    the last price if it cannot be asked
//!                             └─▶ notifications   let them know         one way
//! ```
//!
//! `cargo run --example taxi` needs nothing else. `--help` says how to run it on a real Consul or Eureka.
// It talks to whoever started it.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// No crate but this one sees it.
#![allow(unreachable_pub)]

mod args;
mod bookings;
mod calls;
mod fault;
mod fleet;
mod load;
mod plain;
mod policies;
mod prices;
mod progress;
mod registry;
mod report;
mod services;
mod stalls;
mod stats;
mod timeline;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use buttress::BoxError;
use clap::Parser;

use crate::args::Args;
use crate::bookings::Bookings;
use crate::fleet::{Fleet, Monitored, SERVICES, ZONES};
use crate::registry::TaxiRegistry;
use crate::report::Report;
use crate::stats::Stats;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let report = match run(&args).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("taxi: {error}");
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        println!("{:#}", report.json());
    } else {
        println!("{}", report.table());
    }
    for broken in report.broken() {
        eprintln!("broken: {broken}");
    }
    if report.broken().is_empty() {
        eprintln!("every promise was kept");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<Report, BoxError> {
    let registry = Arc::new(TaxiRegistry::new(args));
    let stats = Arc::new(Stats::default());
    stalls::watch(&stats)?;
    let bookings = Bookings::default();
    let fleet = Arc::new(Fleet::new(registry.clone(), stats.clone(), bookings));
    for service in SERVICES {
        for zone in ZONES {
            fleet.start(service, zone).await?;
        }
    }
    timeline::all_registered(&registry).await?;

    let callers = policies::calls(registry.connect()?, stats.clone());
    let caller = Monitored::new(callers.protected.clone(), &["trips"]);
    let clients = {
        let fleet = fleet.clone();
        move || {
            fleet
                .clients()
                .into_iter()
                .chain([caller.clone()])
                .collect()
        }
    };
    stats.begin_phase(timeline::WARMING_UP);
    let load = tokio::spawn(load::generate(callers, args.rate));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let length = Duration::from_secs(args.seconds);
    let outcome = tokio::select! {
        outcome = timeline::run(&fleet, &registry, &stats, length) => outcome,
        never = progress::report(&stats, clients) => match never {},
    };
    load.abort();
    // The trips under way end: one that does not is lost.
    tokio::time::sleep(Duration::from_secs(3)).await;
    fleet.stop().await;
    outcome?;
    Ok(Report::new(stats.take_phases()))
}
