use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::refusal::Refusal;
use super::{MAX_AGE, file, format};
use crate::clock;
use crate::discovery::instance::Instance;

/// What a snapshot file says, for people who look at one. To read it changes nothing.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Inspected {
    pub version: &'static str,
    pub owner: String,
    /// When it was written, if the system says so.
    pub written: Option<SystemTime>,
    /// Why a resolver would leave it alone, as far as can be told without being that.
    pub doubt: Option<String>,
    /// By name.
    pub services: Vec<Kept>,
}

/// A service in a snapshot file.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Kept {
    pub service: Arc<str>,
    /// Which registry of the chain named the instances, from 0.
    pub position: usize,
    /// When it last confirmed them, in seconds of Unix time.
    pub confirmed: u64,
    pub age: Duration,
    /// Whether a resolver leaves it out for its age, unless it was told otherwise.
    pub is_old: bool,
    /// By id.
    pub instances: Vec<Arc<Instance>>,
}

impl Inspected {
    /// What the file at `path` says.
    ///
    /// # Errors
    ///
    /// Why it says nothing.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::look(path).map_err(|refusal| refusal.to_string())
    }

    fn look(path: &Path) -> Result<Self, Refusal> {
        let (bytes, metadata) = file::open(path, |_| Ok(()))?;
        let (owner, services) = format::read(&bytes)?;
        let now = clock::wall();
        let services = services.into_iter().map(|(service, remembered)| {
            let age = remembered.age(now);
            let mut instances = remembered.instances.to_vec();
            instances.sort_by(|a, b| a.id.cmp(&b.id));
            Kept {
                service,
                position: remembered.position,
                confirmed: remembered.confirmed,
                age,
                is_old: age > MAX_AGE,
                instances,
            }
        });
        let mut services: Vec<_> = services.collect();
        services.sort_by(|a, b| a.service.cmp(&b.service));
        let doubt = file::is_private(&metadata).err();
        Ok(Self {
            version: format::VERSION,
            owner,
            written: metadata.modified().ok(),
            doubt: doubt.map(|refusal| refusal.to_string()),
            services,
        })
    }
}
