//! A file, each row with its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use buttress::discovery::Instance;
use buttress::registries::file::File;
use serde_json::{Map, Value, json};

use super::{Fault, Lapsed};

pub struct Row {
    folder: tempfile::TempDir,
}

impl Row {
    /// What is read, and what it is to be again when a fault is over.
    fn paths(&self) -> [PathBuf; 2] {
        ["instances.json", "kept"].map(|name| self.folder.path().join(name))
    }

    fn read(&self) -> Value {
        let [path, kept] = self.paths();
        let text = fs::read_to_string(kept).or_else(|_| fs::read_to_string(path));
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut Vec<Value>)) {
        let mut all = self.read();
        let list = all["instances"][service].take();
        let mut list = list.as_array().cloned().unwrap_or_default();
        change(&mut list);
        all["instances"][service] = list.into();
        let [path, kept] = self.paths();
        let path = if kept.exists() { kept } else { path };
        let new = self.folder.path().join("new");
        fs::write(&new, all.to_string()).unwrap();
        fs::rename(new, path).unwrap();
    }
}

impl super::Row for Row {
    type Registry = File;
    const NAME: &str = "file";
    const LAPSED: Lapsed = Lapsed::Stays;

    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let row = Self { folder };
        fs::write(&row.paths()[0], r#"{"instances": {}}"#).unwrap();
        Some(row)
    }

    fn registry(&self) -> File {
        File::new(&self.paths()[0])
    }

    async fn fault(&self, fault: Fault) -> bool {
        let [path, kept] = self.paths();
        if !kept.exists() {
            fs::copy(&path, &kept).unwrap();
        }
        let text = fs::read(&kept).unwrap();
        match fault {
            Fault::None => fs::rename(kept, path).unwrap(),
            Fault::Cut => fs::remove_file(path).unwrap(),
            Fault::Partial(bytes) => {
                let bytes = usize::try_from(bytes).unwrap().min(text.len() - 1);
                fs::write(path, &text[..bytes]).unwrap();
            }
            Fault::Garbage => {
                let wrong: Vec<_> = text.into_iter().map(|byte| byte ^ 0x80).collect();
                fs::write(path, wrong).unwrap();
            }
            Fault::Slow(_) => return false,
        }
        true
    }

    // As one that registers itself does: of what an operator wrote, nothing that is gone is missed.
    async fn write(&self, service: &str, instance: &Instance) {
        let mut entry = Map::new();
        entry.insert("zone".into(), json!(instance.zone));
        entry.retain(|_, zone| !zone.is_null());
        let rest = json!({
            "id": instance.id, "host": instance.host, "port": instance.port, "weight": instance.weight,
            "metadata": instance.metadata, "registered": true,
        });
        entry.extend(rest.as_object().cloned().unwrap());
        self.change(service, |list| {
            list.retain(|one| one["id"] != *instance.id);
            list.push(entry.into());
        });
    }

    async fn remove(&self, service: &str, id: &str) {
        self.change(service, |list| list.retain(|one| one["id"] != *id));
    }

    async fn list(&self, service: &str) -> BTreeMap<String, u32> {
        let all = self.read();
        let list = all["instances"][service].as_array().into_iter().flatten();
        list.map(|one| {
            let weight = one["weight"].as_u64().unwrap_or(1);
            (
                one["id"].as_str().unwrap().to_owned(),
                weight.try_into().unwrap(),
            )
        })
        .collect()
    }
}
