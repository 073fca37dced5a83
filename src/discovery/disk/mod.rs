//! What a resolver knows, in a file, for the next process.

mod checksum;
mod file;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod inspect;
mod refusal;
mod secret;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::instance::Instance;

pub use self::inspect::{Inspected, Kept};
pub(super) use self::store::Store;

/// A file in which a [`Resolver`](super::Resolver) keeps the instances that it knows, so that a process that starts while
/// every registry is down finds its peers all the same.
///
/// One file holds all services. It is replaced as a whole, half a minute after a change, off the threads that make calls,
/// and can be read and written by its user alone. It holds neither the addresses nor the credentials of a registry, and
/// leaves out metadata whose key or value looks like a secret. See the [guide](crate::docs::discovery).
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    owner: String,
    max_age: Duration,
}

impl SnapshotFile {
    /// The file at `path`, in a folder that exists and in which files can be created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            owner: String::new(),
            max_age: MAX_AGE,
        }
    }

    /// Says whose file it is, such as `trips in production`. One that says otherwise is refused: the instances of a test
    /// environment must not be called from another. Default: it says nothing.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Leaves out services that a registry last confirmed longer than `age` ago, counted when the file is read. Default
    /// three days: an outage may begin on a Friday evening, but an address that has been silent for longer has often
    /// been given to another.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What is kept of a service.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// Which registry of the chain named the instances.
    pub(super) position: usize,
    /// When it last confirmed them, in seconds of Unix time.
    pub(super) confirmed: u64,
    pub(super) instances: Arc<[Arc<Instance>]>,
}

const MAX_AGE: Duration = Duration::from_secs(3 * 86_400);
