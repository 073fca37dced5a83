use std::cell::OnceCell;

use super::super::call::Cluster;
use super::super::wire::Line;
use super::*;
use crate::registries::servers::{Order, Servers};

/// All that there is, then what the watch tells.
pub(crate) fn lines(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (updates, _reader) = Updates::channel();
    let mut follow = Follow::new(cluster(), "orders/".into(), updates);
    if let Ok(range) = serde_json::from_slice::<Range>(first) {
        follow.revision = range.header.revision;
        range.kvs.into_iter().for_each(|pair| follow.put(pair));
    }
    for line in lines {
        let Ok(line) = serde_json::from_slice::<Line<Told>>(line) else {
            continue;
        };
        let Some(told) = line.result else { continue };
        let revision = follow.revision;
        follow.hear(told);
        assert!(follow.revision >= revision);
        let instances = follow.instances();
        assert!(instances.is_sorted_by_key(|instance| &instance.id));
        assert!(instances.len() <= follow.entries.len());
        // Whoever left is not there as well.
        let is_left = |instance: &Instance| follow.left.iter().any(|left| left.id == instance.id);
        assert!(!instances.iter().any(is_left));
    }
}

/// One that is never asked, made once since it has a client.
fn cluster() -> Cluster {
    thread_local! {
        static SERVERS: OnceCell<Servers> = const { OnceCell::new() };
    }
    let servers = SERVERS.with(|servers| {
        let made = || Servers::new("etcd", "http://127.0.0.1:1", Order::Any);
        servers
            .get_or_init(|| made().expect("a URL that can be used"))
            .clone()
    });
    Cluster {
        servers,
        login: None,
    }
}
