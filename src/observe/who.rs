use std::sync::Arc;

use super::Observer;
use crate::error::Rejected;
use crate::seldom::Seldom;

/// Whose calls these are, and who is told of them. Nobody and nothing costs a call nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who(Seldom<Arc<Known>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) observer: Observer,
}

impl Who {
    pub(crate) fn change(&mut self) -> &mut Known {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    pub(crate) fn known(&self) -> Option<&Known> {
        self.0.as_deref()
    }

    /// With the name and the instance.
    pub(crate) fn sign(&self, mut rejected: Rejected) -> Rejected {
        let Some(who) = self.known() else {
            return rejected;
        };
        if let Some(name) = &who.name {
            rejected = rejected.named(Arc::clone(name));
        }
        if let Some(instance) = &who.instance {
            rejected = rejected.at(Arc::clone(instance));
        }
        rejected
    }

    pub(crate) fn tells(&self, rejected: Rejected) -> Rejected {
        match self.known() {
            Some(who) => who.observer.refused(rejected),
            None => rejected,
        }
    }
}
