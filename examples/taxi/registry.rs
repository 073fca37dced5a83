use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use buttress::discovery::{RegistryError, Update, Updates};
use buttress::registries::consul::Consul;
use buttress::registries::eureka::Eureka;
use buttress::registries::file::File;
use buttress::registries::memory::Memory;
use buttress::{BoxError, Registry};
use tokio::process::Command;

use crate::args::{Args, RegistryArg};
use crate::fleet::{SERVICES, ZONES};

/// The registry of the application, and how it is stopped and started again.
pub struct TaxiRegistry {
    arg: RegistryArg,
    memory: Memory,
    commands: Option<(String, String)>,
}

impl TaxiRegistry {
    pub fn new(args: &Args) -> Self {
        let commands = args.registry_stop.clone().zip(args.registry_start.clone());
        Self {
            arg: args.registry.clone(),
            memory: Memory::new(),
            commands,
        }
    }

    /// A connection of its own for a process.
    pub fn connect(&self) -> Result<Arc<dyn Registry>, BoxError> {
        Ok(match &self.arg {
            RegistryArg::Memory => Arc::new(self.memory.clone()),
            RegistryArg::File(path) => Arc::new(File::new(path)),
            RegistryArg::Consul(url) => Arc::new(Consul::new(url)?),
            RegistryArg::Eureka(url) => Arc::new(Eureka::new(url)?.poll(Duration::from_secs(1))),
        })
    }

    /// Whether it can be stopped from here.
    pub fn can_stop(&self) -> bool {
        match self.arg {
            RegistryArg::Memory | RegistryArg::File(_) => true,
            RegistryArg::Consul(_) | RegistryArg::Eureka(_) => self.commands.is_some(),
        }
    }

    /// Stops the registry at once.
    pub async fn stop(&self) -> Result<(), BoxError> {
        match &self.arg {
            RegistryArg::Memory => self.memory.set_down(true),
            // What cannot be read is not written either. Were it gone, it would be made again by whoever registers.
            RegistryArg::File(path) => {
                tokio::fs::copy(path, aside(path)).await?;
                tokio::fs::write(path, "stopped").await?;
            }
            RegistryArg::Consul(_) | RegistryArg::Eureka(_) => self.run(|(stop, _)| stop).await?,
        }
        Ok(())
    }

    /// Starts the registry again, empty. A file comes back as it was: an empty one is its operator's word.
    pub async fn start(&self) -> Result<(), BoxError> {
        match &self.arg {
            RegistryArg::Memory => {
                self.memory.clear();
                self.memory.set_down(false);
            }
            RegistryArg::File(path) => tokio::fs::rename(aside(path), path).await?,
            RegistryArg::Consul(_) | RegistryArg::Eureka(_) => self.run(|(_, start)| start).await?,
        }
        Ok(())
    }

    /// How many instances the registry itself names.
    pub async fn count(&self) -> Result<usize, BoxError> {
        let registry = self.connect()?;
        let mut count = 0;
        for service in SERVICES {
            count += instances(&*registry, service).await?;
        }
        Ok(count)
    }

    async fn run(&self, which: impl Fn(&(String, String)) -> &String) -> Result<(), BoxError> {
        let Some(commands) = &self.commands else {
            return Ok(());
        };
        let command = which(commands);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let status = shell.status().await?;
        if status.success() {
            return Ok(());
        }
        Err(format!("`{command}` ended with {status}").into())
    }
}

async fn instances(registry: &dyn Registry, service: &str) -> Result<usize, RegistryError> {
    let (updates, mut received) = Updates::channel();
    let watch = registry.watch(service, updates);
    tokio::pin!(watch);
    loop {
        tokio::select! {
            error = &mut watch => return Err(error),
            update = received.recv() => if let Some(Update::Instances { instances, .. }) = update {
                return Ok(instances.len());
            },
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("aside")
}

/// How many instances there are when all is well.
pub const ALL: usize = SERVICES.len() * ZONES.len();
