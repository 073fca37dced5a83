use super::ensemble::{Ensemble, joined};
use super::node::{self, Payload};
use crate::discovery::Status;

/// What a node holds: what was understood of it survives being written.
pub(crate) fn node(bytes: &[u8]) {
    let Some(instance) = node::decode("a", bytes) else {
        return;
    };
    assert_ne!(instance.port, 0);
    assert!(!instance.host.is_empty());
    let status = instance.status;
    let again = |payload| node::decode("a", &node::encode("orders", &instance, status, 7, payload));
    assert_eq!(again(Payload::Spring).as_ref(), Some(&instance));
    let is_bare = instance.metadata.is_empty() && instance.zone.is_none() && instance.weight == 1;
    let told = match status {
        Status::Up => Status::Up,
        // Without a payload there is but one word for it.
        _ if is_bare => Status::OutOfService,
        status => status,
    };
    assert_eq!(again(Payload::Plain), Some(instance.clone().status(told)));
}

/// The address of an ensemble, the path that services are below, and the name of one, a line each.
pub(crate) fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let address = lines.next().unwrap_or_default();
    let Ok(ensemble) = Ensemble::new(address) else {
        return;
    };
    assert!(!address.contains('@'));
    let base = joined(&ensemble.chroot, lines.next().unwrap_or_default());
    for path in [&ensemble.chroot, &base] {
        assert!(path.is_empty() || path.starts_with('/'));
        assert!(!path.ends_with('/') && !path.contains("//"));
    }
    let service = lines.next().unwrap_or_default();
    if ensemble.check_name(service).is_ok() {
        assert_eq!(joined(&base, service), format!("{base}/{service}"));
    }
}
