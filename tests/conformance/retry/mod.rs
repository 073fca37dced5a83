//! `retry/1`: waits drawn from a backoff, flows through a retry layer, budgets, and the rules of HTTP.

use std::panic::catch_unwind;

use serde::Deserialize;
use serde_json::Value;

use crate::report::Miss;
use crate::vector::read;
use config::Config;
use flow::{Ended, Flow};
use waits::Wait;

mod budget;
mod config;
mod flow;
mod http;
mod waits;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
enum Case {
    Backoff {
        config: Config,
        expect: Vec<Wait>,
    },
    Flow {
        config: Config,
        outcomes: Vec<Ended>,
        expect: Flow,
    },
    Budget {
        config: budget::Config,
        steps: Vec<budget::Step>,
    },
    InvalidConfig {
        #[serde(default)]
        config: Value,
        #[serde(default)]
        cases: Vec<Value>,
    },
}

pub(crate) async fn replay(profile: &str, body: Value) -> Result<(), Miss> {
    if body["kind"] == "http" {
        return http::replay(profile, body);
    }
    match read(body)? {
        Case::Backoff { config, expect } => waits::replay(profile, &config, &expect).await,
        Case::Flow {
            config,
            outcomes,
            expect,
        } => flow::replay(profile, &config, outcomes, &expect).await,
        Case::Budget { config, steps } => budget::replay(&config, &steps),
        Case::InvalidConfig { config, cases } if cases.is_empty() => is_refused(profile, config),
        Case::InvalidConfig { cases, .. } => cases
            .into_iter()
            .try_for_each(|config| is_refused(profile, config)),
    }
}

/// Whether the settings are refused: by their types, or with a panic.
fn is_refused(profile: &str, mut config: Value) -> Result<(), Miss> {
    if let Some(inner) = config.get_mut("config") {
        config = inner.take();
    }
    let written = config.to_string();
    if config.get("max_rate").is_some() || config.get("min_concurrency").is_some() {
        let Ok(config) = serde_json::from_value::<budget::Config>(config) else {
            return Ok(());
        };
        return match catch_unwind(|| config.budget()) {
            Ok(_) => Err(Miss::Failed(format!("{written} is accepted"))),
            Err(_) => Ok(()),
        };
    }
    let config: Config = match serde_json::from_value(config) {
        Err(error) if error.to_string().starts_with("unknown field") => {
            return Err(Miss::Unsupported(error.to_string()));
        }
        Err(_) => return Ok(()),
        Ok(config) => config,
    };
    let accepted = catch_unwind(|| {
        config.layer(profile);
        config.settings(profile);
    });
    match (accepted, config.is_allowed_here()) {
        (Err(_), _) => Ok(()),
        (Ok(()), Some(why)) => Err(Miss::Unsupported(format!("{written}: {why}"))),
        (Ok(()), None) => Err(Miss::Failed(format!("{written} is accepted"))),
    }
}
