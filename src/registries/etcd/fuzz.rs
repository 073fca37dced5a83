use super::value;

/// The value of a key: what was understood of it survives being written.
pub(crate) fn value(bytes: &[u8]) {
    let Some(instance) = value::decode("a", bytes) else {
        return;
    };
    assert_ne!(instance.port, 0);
    let written = value::encode(&instance, instance.status);
    assert_eq!(value::decode("a", written.as_bytes()), Some(instance));
}
