use std::collections::BTreeMap;

use super::format::{self, Services};
use super::secret::looks_secret;
use crate::discovery::instance::Instance;

/// A file, and what stands in one behind a header that vouches for it: what was understood survives being written, but
/// for what looks like a secret.
pub(crate) fn snapshot(bytes: &[u8]) {
    for file in [bytes, &format::sealed(bytes)] {
        let Ok((owner, services)) = format::read(file) else {
            continue;
        };
        assert!(format::decode(&format!("{owner}."), file).is_err());
        let written = format::encode(&owner, &services);
        let (again, read) = format::read(&written).expect("what was written can be read");
        assert_eq!(again, owner);
        assert_eq!(told(&read), told(&services));
        for instance in read.values().flat_map(|it| it.instances.iter()) {
            let mut metadata = instance.metadata.iter();
            assert!(!metadata.any(|(key, value)| looks_secret(key, value)));
        }
    }
}

type Told<'a> = BTreeMap<&'a str, (usize, u64, Vec<Instance>)>;

/// What is said of each service and may be written.
fn told(services: &Services) -> Told<'_> {
    let told = services.iter().map(|(name, it)| {
        let open = it.instances.iter().map(|instance| {
            let mut instance = Instance::clone(instance);
            instance
                .metadata
                .retain(|key, value| !looks_secret(key, value));
            instance
        });
        (&**name, (it.position, it.confirmed, open.collect()))
    });
    told.collect()
}
