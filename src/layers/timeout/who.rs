use std::sync::Arc;

use crate::error::{Reason, Rejected};
use crate::observe::Observer;

/// Whose calls these are, and who is told of those given up. Nobody and nothing costs a call nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Who(Option<Arc<Known>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) name: Option<Arc<str>>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) observer: Observer,
}

impl Who {
    pub(super) fn change(&mut self) -> &mut Known {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// A refusal with this name, told to this observer.
    pub(super) fn refuses(&self, reason: Reason) -> Rejected {
        self.tells(self.rejected(reason))
    }

    pub(super) fn rejected(&self, reason: Reason) -> Rejected {
        let Some(who) = &self.0 else {
            return Rejected::new("timeout", reason);
        };
        let rejected = match &who.instance {
            // Told apart from the timeout of the whole call, which has the same name.
            Some(instance) => Rejected::new("attempt timeout", reason).at(Arc::clone(instance)),
            None => Rejected::new("timeout", reason),
        };
        match &who.name {
            Some(name) => rejected.named(Arc::clone(name)),
            None => rejected,
        }
    }

    pub(super) fn tells(&self, rejected: Rejected) -> Rejected {
        match &self.0 {
            Some(who) => who.observer.refused(rejected),
            None => rejected,
        }
    }
}
