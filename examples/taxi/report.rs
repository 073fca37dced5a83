use std::time::Duration;

use serde_json::{Value, json};

use crate::stats::{NOTICED, Path, PhaseStats, Tally};
use crate::timeline::{HEALTHY, PHASES, WARMING_UP};

/// What came of it.
pub struct Report {
    phases: Vec<PhaseStats>,
    broken: Vec<String>,
}

impl Report {
    /// Looks at every phase.
    pub fn new(mut phases: Vec<PhaseStats>) -> Self {
        phases.retain(|phase| phase.name != WARMING_UP);
        let healthy = phases.iter().find(|phase| phase.name == HEALTHY);
        let bound = healthy.map_or(Duration::MAX, |phase| 3 * p99(phase.of(Path::Protected)));
        let broken = phases
            .iter()
            .flat_map(|phase| broken(phase, bound))
            .collect();
        Self { phases, broken }
    }

    /// The promises that were not kept, in words.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let phases = self.phases.iter().map(|phase| {
            json!({
                "phase": phase.name,
                "buttress": figures(phase.of(Path::Protected)),
                "plain": figures(phase.of(Path::Plain)),
            })
        });
        json!({ "phases": phases.collect::<Vec<_>>(), "broken": self.broken })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = HEADER.to_owned();
        for phase in &self.phases {
            let [protected, plain] = Path::BOTH.map(|path| phase.of(path));
            table += &format!(
                "{:<24} │ {} {:>6.1} % {:>6} │ {}\n",
                phase.name,
                columns(protected),
                100.0 * protected.extra_load(),
                protected.cached_prices,
                columns(plain),
            );
        }
        let died: u64 = self
            .phases
            .iter()
            .map(|phase| phase.of(Path::Protected).died_messages)
            .sum();
        table += &format!(
            "\nTimes in ms, of trips begun {NOTICED:?} or more after the phase; successes and losses of all trips.\n\
             {died} notifications were under way in a process that was killed, and are lost with it.\n"
        );
        table
    }
}

/// What was promised for a phase and not kept.
fn broken(phase: &PhaseStats, bound: Duration) -> Vec<String> {
    let tally = phase.of(Path::Protected);
    let trouble = PHASES.iter().find(|(name, ..)| *name == phase.name);
    let registry_alone = trouble.is_some_and(|(_, trouble, _)| trouble.is_registry());
    let least = if registry_alone { 1.0 } else { 0.999 };
    let mut broken = Vec::new();
    let mut hold = |kept: bool, text: String| {
        if !kept {
            let stall = match phase.stall {
                stall if stall < STALL => String::new(),
                stall => format!("; the machine stood still for {stall:?} meanwhile"),
            };
            broken.push(format!("{}: {text}{stall}", phase.name));
        }
    };
    hold(tally.trips > 0, "no trip was booked".into());
    hold(
        tally.success() >= least,
        format!(
            "{} of {} trips were lost: {:.2} % succeeded, of {:.1} % promised",
            tally.lost,
            tally.trips,
            100.0 * tally.success(),
            100.0 * least,
        ),
    );
    hold(
        p99(tally) < bound || phase.name == HEALTHY,
        format!(
            "p99 is {:?}, and three times that of the healthy phase is {bound:?}",
            p99(tally)
        ),
    );
    hold(
        tally.extra_load() < 0.2,
        format!(
            "{:.1} % more calls were sent, of 20 % at most",
            100.0 * tally.extra_load()
        ),
    );
    hold(
        tally.lost_messages == 0,
        format!("{} notifications were lost", tally.lost_messages),
    );
    broken
}

fn p99(tally: &Tally) -> Duration {
    tally.quantile(0.99)
}

fn columns(tally: &Tally) -> String {
    format!(
        "{:>6} {:>6.2} % {:>5} {:>5} {:>6}",
        tally.trips,
        100.0 * tally.success(),
        tally.quantile(0.5).as_millis(),
        p99(tally).as_millis(),
        tally.lost,
    )
}

fn figures(tally: &Tally) -> Value {
    json!({
        "trips": tally.trips,
        "lost": tally.lost,
        "success": tally.success(),
        "p50_ms": 1e3 * tally.quantile(0.5).as_secs_f64(),
        "p99_ms": 1e3 * p99(tally).as_secs_f64(),
        "calls": tally.calls,
        "retries": tally.retries,
        "extra_load": tally.extra_load(),
        "cached_prices": tally.cached_prices,
        "lost_notifications": tally.lost_messages,
        "notifications_that_died_with_their_process": tally.died_messages,
    })
}

/// A machine that stands still for so long may break a promise by itself, which is worth knowing: it is broken even so.
const STALL: Duration = Duration::from_millis(100);

const HEADER: &str = "
                         │ buttress: every service through its policy            │ plain: reqwest, 2 s, round robin
phase                    │  trips  success   p50   p99   lost    extra  cached │  trips  success   p50   p99   lost
─────────────────────────┼───────────────────────────────────────────────────────┼──────────────────────────────────
";
