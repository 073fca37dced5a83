use std::sync::Arc;

use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// Whose calls these are, and who is told of those given up. Nobody and nothing costs a call nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Who(Option<Arc<(Option<Arc<str>>, Observer)>>);

impl Who {
    pub(super) fn change(&mut self) -> &mut (Option<Arc<str>>, Observer) {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// A refusal with this name, told to this observer.
    pub(super) fn refuses(&self, reason: Reason) -> Rejected {
        self.tells(Rejected::new("timeout", reason))
    }

    pub(super) fn tells(&self, rejected: Rejected) -> Rejected {
        let Some(who) = &self.0 else {
            return rejected;
        };
        let (name, observer) = &**who;
        observer.refused(match name {
            Some(name) => rejected.named(Arc::clone(name)),
            None => rejected,
        })
    }
}
