use zookeeper_client::{Client, Error, OneshotWatcher};

use super::ensemble::Ensemble;
use crate::discovery::RegistryError;

/// The children of a node, when one of them came or went last, and who tells when the next one does.
pub(super) struct Listed<C> {
    pub(super) names: Vec<String>,
    pub(super) changed: C,
    pub(super) watcher: OneshotWatcher,
}

/// What is below the root, also where that does not exist.
pub(super) async fn list_root(
    ensemble: &Ensemble,
    session: &Client,
    path: &str,
) -> Result<Listed<Option<i64>>, RegistryError> {
    loop {
        let read = session.get_and_watch_children(path);
        match ensemble.ask(session, read).await? {
            Ok((names, stat, watcher)) => {
                let changed = Some(stat.pzxid);
                return Ok(Listed {
                    names,
                    changed,
                    watcher,
                });
            }
            Err(Error::NoNode) => {}
            Err(error) => return Err(ensemble.error(error)),
        }
        let looked = ensemble
            .ask(session, session.check_and_watch_stat(path))
            .await?;
        let (found, watcher) = looked.map_err(|error| ensemble.error(error))?;
        // Otherwise it was made in between.
        if found.is_none() {
            let (names, changed) = (Vec::new(), None);
            return Ok(Listed {
                names,
                changed,
                watcher,
            });
        }
    }
}

/// What is below the node at `path`, or nothing where there is none.
pub(super) async fn list_folder(
    ensemble: &Ensemble,
    session: &Client,
    path: &str,
) -> Result<Option<Listed<i64>>, RegistryError> {
    let read = session.get_and_watch_children(path);
    match ensemble.ask(session, read).await? {
        Ok((names, stat, watcher)) => {
            let changed = stat.pzxid;
            Ok(Some(Listed {
                names,
                changed,
                watcher,
            }))
        }
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(ensemble.error(error)),
    }
}
