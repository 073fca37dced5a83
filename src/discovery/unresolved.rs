use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::registry::RegistryError;

/// Why a service could not be resolved: which registries were asked, and what each of them said.
///
/// It is the source of the [`Rejected`](crate::Rejected) of [`Watch::resolved`](super::Watch::resolved):
///
/// ```text
/// consul at http://127.0.0.1:8500: connection refused; file instances.toml: knows no such service
/// ```
#[derive(Clone, Debug, Default)]
pub struct ResolveError {
    pub(super) said: Vec<(Arc<str>, Said)>,
}

/// What a registry said of a service that has no instance to call.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Nothing yet.
    Nothing,
    /// It failed.
    Failed(RegistryError),
    /// It names so many instances, none of which is up.
    NoneUp(usize),
}

impl ResolveError {
    /// Whether a registry names instances, though none that is up.
    pub(super) fn names_instances(&self) -> bool {
        let mut said = self.said.iter();
        said.any(|(_, said)| matches!(said, Said::NoneUp(1..)))
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.said.is_empty() {
            return f.write_str("no registry was asked");
        }
        for (index, (registry, said)) in self.said.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{registry}: ")?;
            match said {
                Said::Nothing => f.write_str("has not answered yet"),
                Said::Failed(error) => f.write_str(&error.message()),
                Said::NoneUp(0) => f.write_str("knows no such service"),
                Said::NoneUp(1) => f.write_str("names 1 instance, which is not up"),
                Said::NoneUp(named) => write!(f, "names {named} instances, none of which is up"),
            }?;
        }
        Ok(())
    }
}

impl StdError for ResolveError {
    /// The first failure among them.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.said.iter().find_map(|(_, said)| match said {
            Said::Failed(error) => Some(error as _),
            _ => None,
        })
    }
}
