use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// A ride-hailing application under fault after fault, called through buttress and, beside it, without.
#[derive(Parser)]
pub struct Args {
    /// Where the instances register: memory, file=PATH, consul=URL or eureka=URL.
    #[arg(long, default_value = "memory")]
    pub registry: RegistryArg,

    /// A shell command that stops the registry at once (SIGKILL), for consul and eureka.
    #[arg(long, requires = "registry_start", value_name = "COMMAND")]
    pub registry_stop: Option<String>,

    /// A shell command that starts the registry again on the same address, empty.
    #[arg(long, requires = "registry_stop", value_name = "COMMAND")]
    pub registry_start: Option<String>,

    /// How long the timeline takes. Waiting for a slow registry comes on top.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(16..=3600))]
    pub seconds: u64,

    /// Trips booked a second, through buttress and without it each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub rate: u64,

    /// Print the result as JSON on the standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone)]
pub enum RegistryArg {
    Memory,
    File(PathBuf),
    Consul(String),
    Eureka(String),
}

impl FromStr for RegistryArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = text.split_once('=').unwrap_or((text, ""));
        match (kind, place) {
            ("memory", "") => Ok(Self::Memory),
            ("file", path) if !path.is_empty() => Ok(Self::File(path.into())),
            ("consul", url) if !url.is_empty() => Ok(Self::Consul(url.into())),
            ("eureka", url) if !url.is_empty() => Ok(Self::Eureka(url.into())),
            _ => Err("expected memory, file=PATH, consul=URL or eureka=URL".into()),
        }
    }
}
