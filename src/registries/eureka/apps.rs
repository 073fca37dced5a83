use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::wire::{self, Action, Applications, State};
use crate::discovery::Instance;

/// All instances of all applications. A clone shares what does not change.
#[derive(Clone, Default)]
pub(super) struct Apps(HashMap<String, Arc<App>>);

/// What a service is called by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum By {
    App,
    Vip,
    SecureVip,
}

type App = BTreeMap<String, Entry>;

#[derive(Clone)]
struct Entry {
    state: State,
    /// Its virtual addresses, plain and secure: names separated by commas.
    vips: [Option<String>; 2],
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
                        let entry = Entry {
                            state: instance.state(),
                            vips: [instance.vip.clone(), instance.secure_vip.clone()],
                            instance: instance.into_instance(),
                        };
                        app.insert(id, entry);
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

    /// How many instances there are, whatever their status.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(|app| app.len()).sum()
    }

    /// The instances that are called `name`, in whatever case, in the order of their ids.
    pub(super) fn instances(&self, name: &str, by: By) -> Vec<Instance> {
        let vip = match by {
            By::App => {
                let app = self.0.get(&name.to_uppercase());
                let entries = app.into_iter().flat_map(|app| app.values());
                return entries.filter_map(|entry| entry.instance.clone()).collect();
            }
            By::Vip => 0,
            By::SecureVip => 1,
        };
        let entries = self.0.values().flat_map(|app| app.values());
        let called = entries.filter(|entry| {
            let names = entry.vips[vip].as_deref().unwrap_or_default();
            let mut names = names.split(',');
            names.any(|vip| vip.trim().eq_ignore_ascii_case(name))
        });
        let mut instances: Vec<_> = called
            .filter_map(|entry| entry.instance.clone())
            .filter(|instance| instance.secure || by == By::Vip)
            .collect();
        instances.sort_by(|a, b| (&a.id, &a.host, a.port).cmp(&(&b.id, &b.host, b.port)));
        instances
    }
}
