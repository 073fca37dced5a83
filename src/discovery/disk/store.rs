use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::format::Services;
use super::refusal::Refusal;
use super::{Remembered, SnapshotFile, file};
use crate::clock;
use crate::discovery::backoff::jittered;
use crate::discovery::instance::Instance;
use crate::observe::{Event, Observer};
use crate::rng::ThreadRng;

/// What a resolver knows, in memory and, a moment later, in its file.
///
/// Nothing here waits for the disk, save the first look at it: that is bounded, and a disk that hangs is then done without.
#[derive(Debug)]
pub(in crate::discovery) struct Store {
    file: Arc<SnapshotFile>,
    /// What is older is not used.
    max_age: Duration,
    observer: Observer,
    is_loading: AtomicBool,
    is_loaded: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    services: Services,
    /// Whether something changed since the file was last written.
    is_changed: bool,
    /// When this process last wrote the file.
    written_at: Option<Instant>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    pub(in crate::discovery) fn new(
        file: SnapshotFile,
        max_stale: Option<Duration>,
        observer: Observer,
    ) -> Self {
        Self {
            max_age: file.max_age.min(max_stale.unwrap_or(Duration::MAX)),
            file: Arc::new(file),
            observer,
            is_loading: AtomicBool::new(false),
            is_loaded: watch::Sender::new(false),
            state: Mutex::default(),
        }
    }

    /// What is known of `service` from before, and how old that is.
    pub(in crate::discovery) async fn recall(
        self: &Arc<Self>,
        service: &str,
    ) -> Option<(Remembered, Duration)> {
        self.load();
        let mut is_loaded = self.is_loaded.subscribe();
        tokio::select! {
            biased;
            // The sender is in `self`, so that the wait cannot fail.
            _ = is_loaded.wait_for(|&is_loaded| is_loaded) => {}
            () = clock::sleep(LONGEST_LOAD) => {}
        }
        let remembered = self.state().services.get(service)?.clone();
        let age = remembered.age(clock::wall());
        (age <= self.max_age).then_some((remembered, age))
    }

    /// Keeps `instances`, which the registry at `position` confirmed just now.
    pub(in crate::discovery) fn keep(
        self: &Arc<Self>,
        service: &Arc<str>,
        position: usize,
        instances: &Arc<[Arc<Instance>]>,
    ) {
        let now = clock::now();
        let mut state = self.state();
        let remembered = Remembered {
            position,
            confirmed: seconds(clock::wall()),
            instances: Arc::clone(instances),
        };
        let is_same = match state.services.entry(Arc::clone(service)) {
            Entry::Occupied(mut known) => {
                let before = known.insert(remembered);
                // Most often they are the same slice, which need not be compared.
                before.position == position
                    && (Arc::ptr_eq(&before.instances, instances) || before.instances == *instances)
            }
            Entry::Vacant(unknown) => {
                unknown.insert(remembered);
                false
            }
        };
        // The ages in the file must not grow while the registry goes on confirming.
        let renew = |written_at| now.saturating_duration_since(written_at) >= RENEWAL;
        if !is_same || state.written_at.is_none_or(renew) {
            self.changed(&mut state);
        }
    }

    /// Keeps nothing of `service`, since the registries say that there is nobody.
    pub(in crate::discovery) fn forget(self: &Arc<Self>, service: &str) {
        let mut state = self.state();
        if state.services.remove(service).is_some() {
            self.changed(&mut state);
        }
    }

    fn load(self: &Arc<Self>) {
        if self.is_loading.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let file = Arc::clone(&this.file);
            // It ends without an answer only with the runtime, and then nobody waits for it.
            if let Ok(read) = spawn_blocking(move || read(&file)).await {
                this.take(read);
            }
            this.is_loaded.send_replace(true);
        });
    }

    fn take(&self, read: Result<Option<Services>, String>) {
        let path = self.file.path.display().to_string();
        let services = match read {
            Ok(None) => return,
            Ok(Some(services)) => services,
            Err(error) => {
                let file = &path;
                return self.observer.emit(&Event::SnapshotRefused {
                    file,
                    error: &error,
                });
            }
        };
        let now = clock::wall();
        let mut loaded = (0, 0);
        let mut state = self.state();
        for (name, remembered) in services {
            if remembered.age(now) <= self.max_age {
                loaded.0 += 1;
                loaded.1 += remembered.instances.len();
                // What a registry has said meanwhile is newer.
                state.services.entry(name).or_insert(remembered);
            }
        }
        drop(state);
        self.observer.emit(&Event::SnapshotLoaded {
            file: &path,
            services: loaded.0,
            instances: loaded.1,
        });
    }

    /// Has the file written soon.
    fn changed(self: &Arc<Self>, state: &mut State) {
        state.is_changed = true;
        // It may have ended with its runtime.
        let is_writing = state.writer.as_ref().is_some_and(|it| !it.is_finished());
        if !is_writing {
            state.writer = Some(tokio::spawn(Arc::clone(self).write()));
        }
    }

    /// Writes the file once the changes had time to gather, until there are none.
    async fn write(self: Arc<Self>) {
        // Else what the file says would be lost before it was read.
        let mut is_loaded = self.is_loaded.subscribe();
        let _ = is_loaded.wait_for(|&is_loaded| is_loaded).await;
        loop {
            clock::sleep(jittered(GATHERING, &mut ThreadRng)).await;
            let services = {
                let mut state = self.state();
                if !std::mem::take(&mut state.is_changed) {
                    // Under the lock, so that the next change finds that this has ended.
                    state.writer = None;
                    return;
                }
                let now = clock::wall();
                let max_age = self.max_age;
                state.services.retain(|_, it| it.age(now) <= max_age);
                state.written_at = Some(clock::now());
                state.services.clone()
            };
            let file = Arc::clone(&self.file);
            let written = spawn_blocking(move || file::write(&file, &services)).await;
            if let Ok(Err(error)) = written {
                self.state().is_changed = true;
                self.observer.emit(&Event::SnapshotNotWritten {
                    file: &self.file.path.display().to_string(),
                    error: &error.to_string(),
                });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// How long ago it was confirmed. A clock that was set back makes nothing old.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.confirmed))
    }
}

/// Reads `file`; what cannot be used is set aside, and the error says so.
fn read(file: &SnapshotFile) -> Result<Option<Services>, String> {
    file::read(file).map_err(|refusal: Refusal| {
        let Some(extension) = refusal.extension() else {
            return refusal.to_string();
        };
        match file::set_aside(&file.path, extension) {
            Ok(aside) => format!("{refusal}; it is now {}", aside.display()),
            Err(error) => format!("{refusal}; it could not be set aside: {error}"),
        }
    })
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A disk that answers does so within a fraction of this; calls wait no longer for one that hangs.
const LONGEST_LOAD: Duration = Duration::from_secs(1);
/// How long changes gather before they are written. An instance lives for minutes at least, so that little is missed,
/// and a fleet that changes all the time wears out no disk.
const GATHERING: Duration = Duration::from_secs(30);
/// How old a file may get while nothing changes: a small part of the age up to which it is used.
const RENEWAL: Duration = Duration::from_secs(3600);
