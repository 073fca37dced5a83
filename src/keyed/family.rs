use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Keep, Keyed};

/// Values by key that have settings, all the same ones or each those of its key, which can change.
pub(crate) struct Family<K, V: Member> {
    name: Arc<str>,
    /// What a new member gets. Changed before the others are, so that none is missed.
    settings: Mutex<Arc<Rule<K, V::Settings>>>,
    members: Keyed<K, V>,
}

pub(crate) trait Member: Keep {
    type Settings: Clone;

    /// Goes by other settings from now on.
    fn reconfigure(&self, settings: Self::Settings);
}

/// What says the settings of a key. It may be foreign code, and is asked outside of all locks.
pub(crate) enum Rule<K, S> {
    Same(S),
    ByKey(Box<dyn Fn(&K) -> S + Send + Sync>),
}

impl<K, S: Clone> Rule<K, S> {
    fn of(&self, key: &K) -> S {
        match self {
            Self::Same(settings) => settings.clone(),
            Self::ByKey(by) => by(key),
        }
    }
}

impl<K: Hash + Eq, V: Member> Family<K, V> {
    pub(crate) fn new(name: Arc<str>, settings: Rule<K, V::Settings>, most: usize) -> Self {
        Self {
            name,
            settings: Mutex::new(Arc::new(settings)),
            members: Keyed::new(most),
        }
    }

    /// What `look` sees in the member of `key`, if there is one.
    #[inline]
    pub(crate) fn find<T>(&self, key: &K, look: impl FnOnce(&V) -> T) -> Option<T> {
        self.members.find(key, look)
    }

    /// As [`find`](Self::find), where there was none: the key gets a `new` one, called `name/key`.
    #[cold]
    pub(crate) fn find_or_insert<T>(
        &self,
        key: K,
        new: impl FnOnce(String, V::Settings) -> V,
        look: impl FnOnce(&V) -> T,
    ) -> T
    where
        K: fmt::Display,
    {
        let name = format!("{}/{key}", self.name);
        let by = self.settings();
        let settings = by.of(&key);
        let key = Arc::new(key);
        let new = || new(name, settings);
        self.members
            .find_or_insert(Arc::clone(&key), new, |member| {
                self.settle(&key, member, Some(by));
                look(member)
            })
    }

    /// Goes by other settings from now on: each member, and those that are made later.
    pub(crate) fn reconfigure(&self, settings: Rule<K, V::Settings>) {
        let settings = Arc::new(settings);
        let replaced = mem::replace(&mut *self.lock(), settings);
        drop(replaced);
        self.members
            .each(|key, member| self.settle(key, member, None));
    }

    /// Has a member that goes `by` these go by the latest.
    fn settle(&self, key: &K, member: &V, mut by: Option<Arc<Rule<K, V::Settings>>>) {
        loop {
            let latest = self.settings();
            if by.is_some_and(|by| Arc::ptr_eq(&by, &latest)) {
                return;
            }
            member.reconfigure(latest.of(key));
            by = Some(latest);
        }
    }

    /// Forgets what is idle.
    pub(crate) fn sweep(&self) {
        self.members.sweep();
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Each member that is there, outside of the lock.
    pub(crate) fn each(&self, look: impl FnMut(&K, &V)) {
        self.members.each(look);
    }

    fn settings(&self) -> Arc<Rule<K, V::Settings>> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Rule<K, V::Settings>>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V: Member> Family<K, V> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V: Member> fmt::Debug for Family<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::Stay;
    use super::*;

    struct Value(AtomicU32);

    impl Keep for Value {
        type Worth = ();

        fn stay(&self) -> Stay<()> {
            Stay::Held
        }
    }

    impl Member for Value {
        type Settings = u32;

        fn reconfigure(&self, settings: u32) {
            self.0.store(settings, Ordering::Relaxed);
        }
    }

    fn read(value: &Value) -> u32 {
        value.0.load(Ordering::Relaxed)
    }

    /// What says the settings may ask and change the family itself.
    #[test]
    fn a_member_made_while_the_settings_change_goes_by_the_latest() {
        let family = Arc::new(Family::<u8, Value>::new("all".into(), Rule::Same(0), 9));
        let weak = Arc::downgrade(&family);
        let changes = Box::new(move |key: &u8| {
            let family = weak.upgrade().expect("it asks");
            family.reconfigure(Rule::ByKey(Box::new(|key| 100 + u32::from(*key))));
            u32::from(*key)
        });
        family.reconfigure(Rule::ByKey(changes));
        let value = family.find_or_insert(7, |_, settings| Value(settings.into()), read);
        assert_eq!(value, 107);
        assert_eq!(family.find(&7, read), Some(107));
    }

    #[test]
    fn threads_that_change_the_settings_leave_all_members_with_the_same() {
        let family = Family::<u32, Value>::new("all".into(), Rule::Same(0), 1000);
        std::thread::scope(|scope| {
            let family = &family;
            for thread in 0..3 {
                scope.spawn(move || {
                    for n in 0..100 {
                        let new = |_, settings: u32| Value(settings.into());
                        family.find_or_insert(thread * 100 + n, new, |_| ());
                        family.reconfigure(Rule::Same(thread * 100 + n));
                    }
                });
            }
        });
        let last = family.find(&0, read);
        family.each(|_, value| assert_eq!(Some(read(value)), last));
    }
}
