//! `retry/1`: waits drawn from a backoff, and flows through a retry layer.

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
    Http {
        #[serde(rename = "config")]
        _config: Option<Value>,
        #[serde(rename = "cases")]
        _cases: Option<Value>,
        #[serde(rename = "expect")]
        _expect: Option<Value>,
    },
    InvalidConfig {
        #[serde(default)]
        config: Value,
        #[serde(default)]
        cases: Vec<Value>,
    },
}

pub(crate) async fn replay(body: Value) -> Result<(), Miss> {
    match read(body)? {
        Case::Backoff { config, expect } => waits::replay(&config, &expect).await,
        Case::Flow {
            config,
            outcomes,
            expect,
        } => flow::replay(&config, outcomes, &expect).await,
        Case::Budget { config, steps } => budget::replay(&config, &steps),
        Case::Http { .. } => Err(Miss::Unsupported(
            "which answers are tried again: the shape of these cases is not described".into(),
        )),
        Case::InvalidConfig { config, cases } if cases.is_empty() => is_refused(config),
        Case::InvalidConfig { cases, .. } => cases.into_iter().try_for_each(is_refused),
    }
}

/// Whether the settings are refused: by their types, or with a panic.
fn is_refused(config: Value) -> Result<(), Miss> {
    let written = config.to_string();
    let config: Config = match serde_json::from_value(config) {
        Err(error) if error.to_string().starts_with("unknown field") => {
            return Err(Miss::Unsupported(error.to_string()));
        }
        Err(_) => return Ok(()),
        Ok(config) => config,
    };
    match catch_unwind(|| config.check()) {
        Ok(Ok(())) => Err(Miss::Failed(format!("{written} is accepted"))),
        Ok(Err(miss)) => Err(miss),
        Err(_) => Ok(()),
    }
}
