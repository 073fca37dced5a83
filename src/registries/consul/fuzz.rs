use super::health::{self, Entry};

/// An answer of `/v1/health/service/NAME`.
pub(crate) fn answer(bytes: &[u8]) {
    for address in [None, Some("wan")] {
        let Ok(entries) = serde_json::from_slice::<Vec<Entry>>(bytes) else {
            return;
        };
        let count = entries.len();
        let instances = health::instances(entries, address);
        assert!(instances.len() <= count);
        assert!(instances.is_sorted_by_key(|i| (&i.id, &i.host, i.port)));
        assert!(instances.iter().all(|instance| instance.port != 0));
    }
}
