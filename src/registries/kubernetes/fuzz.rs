use std::collections::HashSet;
use std::sync::LazyLock;

use super::access::{Access, trouble};
use super::name::{ServiceName, is_label};
use super::port::Wanted;
use super::slices::{NoPort, Slices};
use super::wire::{Event, List, Trouble, number};
use crate::discovery::Instance;

/// What a server has of a service in the first line, and what its watch says in the others.
pub(crate) fn lines(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let list = lines.next().unwrap_or_default();
    let mut slices = Slices::default();
    if let Ok(List { metadata, items }) = serde_json::from_slice(list) {
        number(&metadata.version);
        for slice in items.unwrap_or_default() {
            slices.put(slice);
        }
        check(&slices);
    }
    for line in lines {
        let Ok(event) = serde_json::from_slice(line) else {
            continue;
        };
        match event {
            Event::Added(slice) | Event::Modified(slice) => slices.put(slice),
            Event::Deleted(slice) => slices.remove(&slice),
            Event::Bookmark(bookmark) => drop(number(&bookmark.metadata.version)),
            Event::Error(said) => words(&said),
        }
        check(&slices);
    }
}

/// The name of a service.
pub(crate) fn name(bytes: &[u8]) {
    if let Some(name) = ServiceName::new(&String::from_utf8_lossy(bytes)) {
        assert!(is_label(&name.service));
        assert!(name.namespace.is_none_or(|namespace| is_label(&namespace)));
    }
}

fn check(slices: &Slices) {
    for wanted in [Wanted::Any, Wanted::new("http"), Wanted::new("80")] {
        let instances = match slices.instances(&wanted) {
            Ok(instances) => instances,
            Err(NoPort(others)) => {
                assert!(!others.is_empty());
                continue;
            }
        };
        assert!(instances.is_sorted_by(|a, b| a.id < b.id));
        let addresses: HashSet<_> = instances.iter().map(Instance::authority).collect();
        assert_eq!(addresses.len(), instances.len());
        for instance in &instances {
            assert!(!instance.id.is_empty() && !instance.host.is_empty());
            assert_ne!(instance.port, 0);
        }
    }
}

/// A server repeats what it was told, and we do not.
fn words(said: &Trouble) {
    let error = trouble(&SERVER.http, said, "default").error();
    assert!(!error.to_string().contains(TOKEN));
}

static SERVER: LazyLock<Access> = LazyLock::new(|| {
    let mut access = Access::new("http://127.0.0.1").expect("a URL");
    access.http.keep_out(TOKEN.into());
    access
});

const TOKEN: &str = "t0 ken";
