use zookeeper_client::{Client, CreateMode, Error};

use super::ensemble::Ensemble;
use crate::discovery::{ErrorKind, RegistryError};

/// Puts the node at `path`, in the place of one that an earlier session left.
pub(super) async fn put(
    ensemble: &Ensemble,
    session: &Client,
    folder: &str,
    path: &str,
    data: &[u8],
) -> Result<(), RegistryError> {
    let ephemeral = CreateMode::Ephemeral.with_acls(ensemble.acl());
    for _ in 0..ATTEMPTS {
        let created = session.create(path, data, &ephemeral);
        match ensemble.ask(session, created).await? {
            Ok(_) => return Ok(()),
            Err(Error::NoNode) => make_folder(ensemble, session, folder).await?,
            Err(Error::NodeExists) => match replace(ensemble, session, path, data).await? {
                Ok(()) => return Ok(()),
                // It went in between.
                Err(Error::NoNode) => {}
                Err(error) => return Err(ensemble.error(error)),
            },
            Err(error) => return Err(ensemble.error(error)),
        }
    }
    let message = "others put and take away the same node all the time";
    Err(RegistryError::new(
        ensemble.name.clone(),
        ErrorKind::Failed,
        message,
    ))
}

async fn replace(
    ensemble: &Ensemble,
    session: &Client,
    path: &str,
    data: &[u8],
) -> Result<Result<(), Error>, RegistryError> {
    let found = ensemble.ask(session, session.check_stat(path)).await?;
    match found {
        Ok(Some(stat)) if stat.ephemeral_owner == session.session_id().0 => {
            let told = session.set_data(path, data, None);
            Ok(ensemble.ask(session, told).await?.map(|_| ()))
        }
        Ok(Some(_)) => {
            // In one step, so that nobody sees it gone.
            let ephemeral = CreateMode::Ephemeral.with_acls(ensemble.acl());
            let mut both = session.new_multi_writer();
            let written = both
                .add_delete(path, None)
                .and_then(|()| both.add_create(path, data, &ephemeral));
            written.map_err(|error| ensemble.error(error))?;
            let done = async { both.commit().await.map_err(Error::from) };
            Ok(ensemble.ask(session, done).await?.map(|_| ()))
        }
        Ok(None) => Ok(Err(Error::NoNode)),
        Err(error) => Ok(Err(error)),
    }
}

/// Makes the folder of a service and all above it, which the servers remove once they are empty.
async fn make_folder(
    ensemble: &Ensemble,
    session: &Client,
    folder: &str,
) -> Result<(), RegistryError> {
    for mode in [CreateMode::Container, CreateMode::Persistent] {
        let options = mode.with_acls(ensemble.acl());
        let made = session.mkdir(folder, &options);
        match ensemble.ask(session, made).await? {
            Ok(()) => return Ok(()),
            // Before 3.5, there are no containers.
            Err(Error::Unimplemented) => {}
            Err(error) => return Err(ensemble.error(error)),
        }
    }
    Err(ensemble.error(Error::Unimplemented))
}

/// How often what others do at the same time may come between.
const ATTEMPTS: u32 = 5;
