use super::{Event, Observe};

/// Turns events into `tracing` events of target `buttress`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

impl Observe for TracingObserver {
    fn on_event(&self, _event: &Event<'_>) {}
}
