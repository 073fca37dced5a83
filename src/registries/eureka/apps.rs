use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::wire::{self, Action, Applications, State};
use crate::discovery::Instance;

/// All instances of all applications. A clone shares what does not change.
#[derive(Clone, Default)]
pub(super) struct Apps(HashMap<String, Arc<App>>);

type App = BTreeMap<String, Entry>;

#[derive(Clone)]
struct Entry {
    state: State,
    /// None if it has no port at which it can be called.
    instance: Option<Instance>,
}

impl Apps {
    pub(super) fn new(full: Applications) -> Self {
        let mut apps = Self::default();
        apps.apply(full);
        apps
    }

    /// Applies changes, which may be repeated.
    pub(super) fn apply(&mut self, changes: Applications) {
        for application in changes.application {
            let name = application.name.to_uppercase();
            let app = Arc::make_mut(self.0.entry(name).or_default());
            for instance in application.instance {
                let Some(id) = instance.id() else { continue };
                match instance.action() {
                    Action::Put => {
                        let state = instance.state();
                        let instance = instance.into_instance();
                        app.insert(id, Entry { state, instance });
                    }
                    Action::Delete => {
                        app.remove(&id);
                    }
                }
            }
        }
        self.0.retain(|_, app| !app.is_empty());
    }

    /// How many instances have which status: `DOWN_2_UP_5_`, as the server computes it.
    pub(super) fn hashcode(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.0.values().flat_map(|app| app.values()) {
            *counts.entry(wire::name(entry.state)).or_default() += 1;
        }
        let mut hashcode = String::new();
        for (state, count) in counts {
            // Writing to a `String` cannot fail.
            let _ = write!(hashcode, "{state}_{count}_");
        }
        hashcode
    }

    /// The instances of an application, whose name is in upper case, in the order of their ids.
    pub(super) fn instances(&self, app: &str) -> Vec<Instance> {
        let entries = self.0.get(app).into_iter().flat_map(|app| app.values());
        entries.filter_map(|entry| entry.instance.clone()).collect()
    }
}
