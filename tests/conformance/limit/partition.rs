use std::collections::BTreeMap;
use std::panic::catch_unwind;

use futures_util::FutureExt;
use serde::Deserialize;

use buttress::layers::bulkhead::{Bulkhead, Permit};

use crate::report::{Miss, same};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    limit: usize,
    partitions: BTreeMap<String, f64>,
    /// Whose calls do not ask.
    #[serde(default)]
    bypass: Bypass,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Bypass {
    #[default]
    Nobody,
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    op: Op,
    call: Option<String>,
    partition: Option<String>,
    #[serde(default)]
    bypass: bool,
    limit: Option<usize>,
    expect: Option<Became>,
    inflight: Option<usize>,
    #[serde(default)]
    partition_inflight: BTreeMap<String, usize>,
    #[serde(default)]
    partition_limit: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Success,
    Drop,
    Ignore,
    SetLimit,
    Query,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Became {
    Permitted,
    Rejected,
}

/// The whole, and each partition by its name.
struct Handles {
    bypass: Bypass,
    whole: Bulkhead,
    partitions: BTreeMap<String, Bulkhead>,
}

pub(super) fn replay(config: Config, steps: Vec<Step>) -> Result<(), Miss> {
    let handles = Handles::new(config)?;
    let mut calls = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        let at = |miss: Miss| miss.at(format_args!("step {i} ({:?})", step.op));
        match step.op {
            Op::Acquire => acquire(i, step, &handles, &mut calls).map_err(at)?,
            Op::Success | Op::Drop | Op::Ignore => {
                let name = step.call.clone().unwrap_or_default();
                let ended = calls.remove(&name).is_some();
                same("whether the call is under way", ended, true).map_err(at)?;
            }
            Op::SetLimit => handles.whole.resize(step.limit.unwrap_or_default()),
            Op::Query => {}
        }
        check(step, &handles).map_err(at)?;
    }
    Ok(())
}

fn acquire(
    i: usize,
    step: &Step,
    handles: &Handles,
    calls: &mut BTreeMap<String, Option<Permit>>,
) -> Result<(), Miss> {
    let name = step.call.clone().unwrap_or_else(|| format!("step {i}"));
    if step.bypass || handles.bypass.is(step.partition.as_deref()) {
        calls.insert(name, None);
        let expected = step.expect.unwrap_or(Became::Permitted);
        return same("the call", Became::Permitted, expected);
    }
    // Whoever is of no partition that is known gets what the others leave.
    let of = step.partition.as_ref();
    let of = of.and_then(|name| handles.partitions.get(name));
    let asked = of.unwrap_or(&handles.whole).acquire().now_or_never();
    let became = match asked {
        Some(Ok(permit)) => {
            calls.insert(name, Some(permit));
            Became::Permitted
        }
        _ => Became::Rejected,
    };
    same("the call", became, step.expect.unwrap_or(became))
}

fn check(step: &Step, handles: &Handles) -> Result<(), Miss> {
    let in_flight = handles.whole.in_flight();
    same("in flight", in_flight, step.inflight.unwrap_or(in_flight))?;
    for (name, wanted) in &step.partition_inflight {
        same(name, handles.partition(name)?.in_flight(), *wanted)?;
    }
    for (name, wanted) in &step.partition_limit {
        same(name, handles.partition(name)?.limit(), *wanted)?;
    }
    Ok(())
}

impl Handles {
    fn new(
        Config {
            limit,
            partitions,
            bypass,
        }: Config,
    ) -> Result<Self, Miss> {
        let names: Vec<_> = partitions.keys().cloned().collect();
        let whole = catch_unwind(|| Bulkhead::new("peer", limit).partitions(partitions))
            .map_err(|_| Miss::Unsupported("shares that a bulkhead refuses".into()))?;
        let handles = names.into_iter().map(|name| {
            let partition = whole.partition(&name);
            (name, partition)
        });
        Ok(Self {
            bypass,
            partitions: handles.collect(),
            whole,
        })
    }

    fn partition(&self, name: &str) -> Result<&Bulkhead, Miss> {
        let unknown = || Miss::Unsupported(format!("a look at the partition `{name}`"));
        self.partitions.get(name).ok_or_else(unknown)
    }
}

impl Bypass {
    fn is(&self, partition: Option<&str>) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(name) => partition == Some(name),
            Self::Several(names) => names.iter().any(|name| partition == Some(name)),
        }
    }
}
