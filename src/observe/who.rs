use std::sync::Arc;

use super::Observer;
use crate::error::Rejected;

/// Whose calls these are, and who is told of them. Nobody and nothing costs a call nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who(Option<Arc<(Option<Arc<str>>, Observer)>>);

impl Who {
    pub(crate) fn set_name(&mut self, name: Arc<str>) {
        self.change().0 = Some(name);
    }

    pub(crate) fn set_observer(&mut self, observer: Observer) {
        self.change().1 = observer;
    }

    fn change(&mut self) -> &mut (Option<Arc<str>>, Observer) {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_ref()?.0.as_deref()
    }

    pub(crate) fn observer(&self) -> Option<&Observer> {
        self.0.as_ref().map(|who| &who.1)
    }

    /// A refusal with this name, told to this observer.
    pub(crate) fn refuses(&self, rejected: Rejected) -> Rejected {
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
