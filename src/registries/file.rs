//! Instances in a TOML or JSON file, which is watched. See the [guide](crate::docs::registries::file).
//!
//! ```toml
//! [[instances.orders]]
//! host = "10.0.0.7"
//! port = 8080
//! zone = "a"            # and id, secure, weight, status, metadata: all optional
//! ```
//!
//! The ending of the name, `.toml` or `.json`, says which of the two it is. What an operator takes out of it is gone
//! at once. A file that is missing or has a mistake changes nothing; the error names the field and the value.
//!
//! An instance that registers is written into the file, so that several processes on one machine find one another
//! without a server. Comments do not survive that, and an instance that crashes stays in the file. If many that
//! registered are gone at once, the file was lost rather than edited, and the loss is held until it is confirmed.
//!
//! The feature needs Rust 1.89.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("buttress-file-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("instances.toml");
//! use buttress::Resolver;
//! use buttress::registries::file::File;
//!
//! std::fs::write(&path, "[[instances.orders]]\nhost = '10.0.0.7'\nport = 8080\n")?;
//! let watch = Resolver::new(File::new(&path)).watch("orders");
//! assert_eq!(watch.resolved().await?.instances()[0].authority(), "10.0.0.7:8080");
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use self::format::{Entry, Format, Services};
use crate::discovery::{
    BoxFuture, ErrorKind, Instance, Registry, RegistryError, Renewal, Status, Updates,
};

mod follow;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;

/// A registry that is a file. A cheap clone shares.
#[derive(Clone, Debug)]
pub struct File {
    name: Arc<str>,
    path: Arc<Path>,
    /// Whose turn it is to change the file, so that a lock which another process keeps holds up one thread, not all.
    turn: Arc<Mutex<()>>,
}

impl File {
    /// The registry in the file at `path`, which is read when it is first asked.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            name: format!("file {}", path.display()).into(),
            path: path.into(),
            turn: Arc::default(),
        }
    }

    /// Runs `job`, which reads and writes files, where it holds up nobody.
    fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Self) -> Result<T, RegistryError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let this = self.clone();
        Box::pin(async move {
            let name = Arc::clone(&this.name);
            let done = tokio::task::spawn_blocking(move || job(&this)).await;
            done.unwrap_or_else(|_| {
                Err(RegistryError::new(
                    name,
                    ErrorKind::Failed,
                    "the runtime ended",
                ))
            })
        })
    }

    fn read(&self) -> Result<Services, RegistryError> {
        let text = fs::read_to_string(&self.path)
            .map_err(|error| self.failed("cannot be read", ErrorKind::Unreachable, error))?;
        Format::of(&self.path)
            .and_then(|format| format.parse(&text))
            .map_err(|message| self.malformed(message))
    }

    /// Reads the file, lets `change` change it, and writes it if it says that it did. No other process that does the
    /// same comes in between. A file that is missing is `missing`.
    fn change<T: Send + 'static>(
        &self,
        missing: Missing,
        change: impl FnOnce(&mut Services) -> (T, bool) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let this = self.clone();
        Box::pin(async move {
            let turn = Arc::clone(&this.turn).lock_owned().await;
            let changed = this.blocking(move |this| {
                let _turn = turn;
                this.rewrite(missing, change)
            });
            changed.await
        })
    }

    fn rewrite<T>(
        &self,
        missing: Missing,
        change: impl FnOnce(&mut Services) -> (T, bool),
    ) -> Result<T, RegistryError> {
        let failed = |error| self.failed("cannot be written", ErrorKind::Failed, error);
        let _lock = self.lock().map_err(failed)?;
        let mut services = match missing {
            Missing::Empty if !self.path.exists() => Services::new(),
            _ => self.read()?,
        };
        let (told, is_changed) = change(&mut services);
        if !is_changed {
            return Ok(told);
        }
        let text = Format::of(&self.path)
            .and_then(|format| format.print(&services))
            .map_err(|message| self.malformed(message))?;
        let fresh = self.beside("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.path))
            .map_err(failed)?;
        Ok(told)
    }

    /// Waits for the lock, which goes with the handle or with the process. It is a file beside, because the file itself
    /// is replaced.
    // This feature needs Rust 1.89; the default features, for which `rust-version` stands, do not.
    #[allow(clippy::incompatible_msrv)]
    fn lock(&self) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        let lock = options
            .create(true)
            .append(true)
            .open(self.beside("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{ending}"))
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn malformed(&self, message: String) -> RegistryError {
        RegistryError::new(Arc::clone(&self.name), ErrorKind::Malformed, message)
    }

    fn failed(
        &self,
        what: &str,
        kind: ErrorKind,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> RegistryError {
        RegistryError::new(Arc::clone(&self.name), kind, what).caused_by(error)
    }
}

impl Registry for File {
    fn name(&self) -> &str {
        &self.name
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let (this, service) = (self.clone(), service.to_owned());
        Box::pin(async move { this.follow(&service, &updates).await })
    }

    /// Writes `instance` into the file. It stays there until it is deregistered: nothing watches the `ttl`.
    fn register(
        &self,
        service: &str,
        instance: &Instance,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let service = service.to_owned();
        let instance = instance.clone();
        self.change(Missing::Empty, move |services| {
            let entries = match named(services, &service) {
                Some(entries) => entries,
                None => services.entry(service).or_default(),
            };
            entries.retain(|entry| entry.instance.id != instance.id);
            entries.push(Entry {
                instance,
                registered: true,
            });
            ((), true)
        })
    }

    fn renew(
        &self,
        service: &str,
        instance: &Instance,
        status: Status,
    ) -> BoxFuture<'static, Result<Renewal, RegistryError>> {
        let service = service.to_owned();
        let id = instance.id.clone();
        self.change(Missing::Error, move |services| {
            let mut entries = named(services, &service).into_iter().flatten();
            let Some(entry) = entries.find(|entry| entry.instance.id == id) else {
                return (Renewal::Unknown, false);
            };
            let is_changed = std::mem::replace(&mut entry.instance.status, status) != status;
            (Renewal::Renewed, is_changed)
        })
    }

    fn deregister(
        &self,
        service: &str,
        instance: &Instance,
    ) -> BoxFuture<'static, Result<(), RegistryError>> {
        let service = service.to_owned();
        let id = instance.id.clone();
        self.change(Missing::Empty, move |services| {
            let Some(entries) = named(services, &service) else {
                return ((), false);
            };
            let before = entries.len();
            entries.retain(|entry| entry.instance.id != id);
            ((), entries.len() < before)
        })
    }
}

/// What a file that is missing stands for.
#[derive(Clone, Copy)]
enum Missing {
    /// No instances yet: whoever registers makes the file.
    Empty,
    /// A registry that is down, rather than one that forgot.
    Error,
}

/// The instances of `service`, whatever the case of its name: that of a host in a URL is lower.
fn named<'a>(services: &'a mut Services, service: &str) -> Option<&'a mut Vec<Entry>> {
    let mut services = services.iter_mut();
    let found = services.find(|(name, _)| name.eq_ignore_ascii_case(service));
    found.map(|(_, entries)| entries)
}
