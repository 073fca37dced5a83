use tracing::{debug, info, warn};

use super::{Event, Observe, words};
use crate::algo::breaker::State;
use crate::error::rounded;

/// Turns events into `tracing` events of target `buttress`.
///
/// What happens once a call (refusals, retries and those that gave up, hedges and those that won, shared calls, fallbacks,
/// injected faults) is told at `DEBUG`, what changes the picture at `INFO`, and what somebody should look at (a breaker
/// opens, an instance is ejected, a registry fails or forgot an instance, a store fails) at `WARN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

impl Observe for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::Refused(rejected) => debug!(
                target: TARGET,
                layer = rejected.layer(),
                name = rejected.name(),
                instance = rejected.instance(),
                reason = words::reason(rejected.reason()),
                retry_after = rejected.wait_hint().map(rounded).map(tracing::field::debug),
                "call refused"
            ),
            Event::StateChanged { breaker, from, to } => {
                let (from, to_word) = (words::state(from), words::state(to));
                if matches!(to, State::Open | State::ForcedOpen) {
                    warn!(target: TARGET, name = breaker, from, to = to_word, "circuit breaker changed");
                } else {
                    info!(target: TARGET, name = breaker, from, to = to_word, "circuit breaker changed");
                }
            }
            Event::Tripped { breaker, condition } => {
                let condition = words::condition(condition);
                info!(target: TARGET, name = breaker, condition, "circuit breaker tripped");
            }
            Event::LimitChanged { name, limit } => {
                debug!(target: TARGET, name, limit, "concurrency limit changed");
            }
            Event::Retrying {
                retry,
                attempt,
                wait,
            } => debug!(target: TARGET, name = retry, attempt, wait = ?rounded(wait), "retrying"),
            Event::GaveUp {
                retry,
                attempts,
                reason,
            } => {
                let reason = words::give_up(reason);
                debug!(target: TARGET, name = retry, attempts, reason, "retry gave up");
            }
            Event::Hedging { hedge, attempt } => {
                debug!(target: TARGET, name = hedge, attempt, "hedging");
            }
            Event::HedgeWon { hedge, attempt } => {
                debug!(target: TARGET, name = hedge, attempt, "hedge won");
            }
            Event::Coalesced { coalesce } => {
                debug!(target: TARGET, name = coalesce, "call coalesced");
            }
            Event::BudgetExhausted { retry } => {
                debug!(target: TARGET, name = retry, "retry budget exhausted");
            }
            Event::FellBack { fallback } => {
                debug!(target: TARGET, name = fallback, "fallback answered");
            }
            Event::FaultInjected { chaos, fault } => {
                debug!(target: TARGET, name = chaos, fault, "fault injected");
            }
            Event::Ejected {
                service,
                instance,
                wait,
            } => {
                warn!(target: TARGET, service, instance, wait = ?rounded(wait), "instance ejected")
            }
            Event::Returned { service, instance } => {
                info!(target: TARGET, service, instance, "instance returned");
            }
            Event::InstancesChanged {
                service,
                instances,
                held,
            } => info!(target: TARGET, service, instances, held, "instances changed"),
            Event::RegistryFailed {
                registry,
                service,
                error,
                wait,
            } => {
                warn!(target: TARGET, registry, service, error, wait = ?rounded(wait), "registry failed")
            }
            Event::RegistryRecovered { registry, service } => {
                info!(target: TARGET, registry, service, "registry recovered");
            }
            Event::SnapshotLoaded {
                file,
                services,
                instances,
            } => info!(target: TARGET, file, services, instances, "snapshot loaded"),
            Event::SnapshotRefused { file, error } => {
                warn!(target: TARGET, file, error, "snapshot refused");
            }
            Event::SnapshotNotWritten { file, error } => {
                warn!(target: TARGET, file, error, "snapshot not written");
            }
            Event::Registered {
                registry,
                service,
                instance,
                again: false,
            } => info!(target: TARGET, registry, service, instance, "instance registered"),
            Event::Registered {
                registry,
                service,
                instance,
                again: true,
            } => warn!(
                target: TARGET,
                registry, service, instance, "instance registered again: the registry had forgotten it"
            ),
            Event::Deregistered {
                registry,
                service,
                instance,
            } => info!(target: TARGET, registry, service, instance, "instance deregistered"),
            Event::StoreFailed { store, error, wait } => {
                warn!(target: TARGET, store, error, wait = ?rounded(wait), "store failed");
            }
            Event::StoreRecovered { store } => info!(target: TARGET, store, "store recovered"),
        }
    }
}

const TARGET: &str = "buttress";
