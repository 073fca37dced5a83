use super::apps::{Apps, By};
use super::wire::{Applications, Envelope};
use crate::discovery::Instance;

/// A full answer, then changes, each of which may be repeated.
pub(crate) fn answers(bytes: &[u8]) {
    // No text has this byte.
    let mut answers = bytes.split(|&byte| byte == u8::MAX);
    let mut apps = Apps::new(answers.next().and_then(read).unwrap_or_else(nothing));
    for changes in answers {
        let (Some(once), Some(again)) = (read(changes), read(changes)) else {
            continue;
        };
        let names: Vec<_> = (once.application.iter())
            .map(|application| application.name.to_uppercase())
            .collect();
        apps.apply(once);
        let hashcode = apps.hashcode();
        let instances = all(&apps, &names);
        for found in instances.iter().flatten() {
            assert_ne!(found.port, 0);
        }
        apps.apply(again);
        assert_eq!(apps.hashcode(), hashcode);
        assert_eq!(all(&apps, &names), instances);
    }
}

/// What is called each of `names`, in each of the ways in which it may be.
fn all(apps: &Apps, names: &[String]) -> Vec<Vec<Instance>> {
    let by = |by: By| names.iter().map(move |name| apps.instances(name, by));
    let all = [By::App, By::Vip, By::SecureVip].into_iter().flat_map(by);
    all.collect()
}

fn read(bytes: &[u8]) -> Option<Applications> {
    let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
    Some(envelope.applications)
}

fn nothing() -> Applications {
    Applications {
        hashcode: None,
        application: Vec::new(),
    }
}
