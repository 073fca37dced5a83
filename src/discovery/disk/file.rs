//! Reading and replacing the file. It blocks, and so runs where it may.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SnapshotFile;
use super::format::{self, Services};
use super::refusal::Refusal;
use crate::algo::Rng as _;
use crate::clock;
use crate::rng::ThreadRng;

/// What `file` says, if it is there.
pub(super) fn read(file: &SnapshotFile) -> Result<Option<Services>, Refusal> {
    sweep(&file.path);
    let trusted = |metadata: &_| trusted(&file.path, metadata);
    match open(&file.path, trusted) {
        Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(refusal) => Err(refusal),
        Ok((bytes, _)) => format::decode(&file.owner, &bytes).map(Some),
    }
}

/// The bytes of the file at `path`, if that is one whose `metadata` is trusted.
pub(super) fn open(
    path: &Path,
    is_trusted: impl FnOnce(&fs::Metadata) -> Result<(), Refusal>,
) -> Result<(Vec<u8>, fs::Metadata), Refusal> {
    let metadata = fs::metadata(path)?;
    // Opening a pipe would wait for who writes to it.
    if !metadata.is_file() {
        return Err(Refusal::Access {
            expected: "a file".to_owned(),
            found: format!("{:?}", metadata.file_type()),
        });
    }
    let mut opened = File::open(path)?;
    let metadata = opened.metadata()?;
    is_trusted(&metadata)?;
    if metadata.len() > MOST_BYTES {
        return Err(Refusal::Size {
            most: MOST_BYTES,
            found: metadata.len(),
        });
    }
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

/// Gives a refused file another name, which is returned.
pub(super) fn set_aside(path: &Path, extension: &str) -> io::Result<PathBuf> {
    let aside = beside(path, extension);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Replaces `file`, so that whoever reads it, after whatever crash, finds all of the old or all of the new one.
pub(super) fn write(file: &SnapshotFile, services: &Services) -> io::Result<()> {
    let bytes = format::encode(&file.owner, services);
    let (temporary, mut opened) = create(&file.path)?;
    let written = opened
        .write_all(&bytes)
        .and_then(|()| opened.sync_all())
        .and_then(|()| fs::rename(&temporary, &file.path));
    if written.is_err() {
        // It is in nobody's way, and swept up by a later start.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(&file.path)
}

/// A new file beside `path` that only its user can read, of a name that no other process chose.
fn create(path: &Path) -> io::Result<(PathBuf, File)> {
    let temporary = beside(path, &format!("{:016x}.{TEMPORARY}", ThreadRng.next_u64()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(&temporary)?;
    Ok((temporary, opened))
}

/// A rename is in the folder, and lasts when that is on disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}

/// A file that others can write says where others want the calls to go.
#[cfg(unix)]
pub(super) fn is_private(metadata: &fs::Metadata) -> Result<(), Refusal> {
    use std::os::unix::fs::MetadataExt as _;

    let mode = metadata.mode() & 0o777;
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(Refusal::Access {
            expected: "a file that its user alone can write".to_owned(),
            found: format!("mode {mode:04o}"),
        }),
    }
}

#[cfg(not(unix))]
pub(super) fn is_private(_: &fs::Metadata) -> Result<(), Refusal> {
    Ok(())
}

/// Whether nobody wrote the file but who runs this, or root.
#[cfg(unix)]
fn trusted(path: &Path, metadata: &fs::Metadata) -> Result<(), Refusal> {
    use std::os::unix::fs::MetadataExt as _;

    is_private(metadata)?;
    // What this process creates is its user's. Where it can create nothing, only the mode speaks for the file.
    let Ok((temporary, opened)) = create(path) else {
        return Ok(());
    };
    let ours = opened.metadata().map(|ours| ours.uid());
    let _ = fs::remove_file(temporary);
    let (ours, theirs) = (ours?, metadata.uid());
    if theirs != ours && theirs != ROOT {
        return Err(Refusal::Access {
            expected: format!("a file of user {ours}"),
            found: format!("one of user {theirs}"),
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn trusted(_: &Path, _: &fs::Metadata) -> Result<(), Refusal> {
    Ok(())
}

/// Removes what processes left behind that ended while they wrote.
fn sweep(path: &Path) {
    let Some(name) = path.file_name() else {
        return;
    };
    let name = name.to_string_lossy();
    let entries = fs::read_dir(folder(path)).into_iter().flatten();
    for entry in entries.flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let is_ours = file
            .strip_prefix(&*name)
            .and_then(|rest| {
                rest.strip_prefix('.')?
                    .strip_suffix(TEMPORARY)?
                    .strip_suffix('.')
            })
            .is_some_and(|random| random.len() == 16);
        let age = || {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            clock::wall().duration_since(modified.ok()?).ok()
        };
        if is_ours && age().is_some_and(|age| age > LEFT_BEHIND) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

const TEMPORARY: &str = "tmp";
/// No write takes so long.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
/// A hundred times what a large fleet fills: a larger file is something else.
const MOST_BYTES: u64 = 256 << 20;
#[cfg(unix)]
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Remembered;
    use super::*;
    use crate::discovery::instance::Instance;

    fn services(name: &str, count: usize) -> Services {
        let instance = |n: usize| Arc::new(Instance::new(n.to_string(), name, 80));
        let remembered = Remembered {
            position: 0,
            confirmed: 7,
            instances: (0..count).map(instance).collect(),
        };
        Services::from([(Arc::from(name), remembered)])
    }

    #[test]
    fn of_two_processes_the_last_complete_file_wins_and_none_is_ever_torn() {
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(folder.path().join("it"));
        write(&file, &services("a", 100)).unwrap();
        std::thread::scope(|scope| {
            for (name, count) in [("a", 100), ("b", 200)] {
                let file = &file;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write(file, &services(name, count)).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let read = read(&file).unwrap().unwrap();
                let one: Vec<_> = read
                    .iter()
                    .map(|(name, it)| (&**name, it.instances.len()))
                    .collect();
                assert!(matches!(one[..], [("a", 100) | ("b", 200)]), "{one:?}");
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_behind_is_swept_up_once_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(folder.path().join("it"));
        let old = clock::wall() - 2 * LEFT_BEHIND;
        for (name, modified) in [
            ("it.0123456789abcdef.tmp", old),
            ("it.fedcba9876543210.tmp", clock::wall()),
            ("it.corrupt", old),
            ("other.0123456789abcdef.tmp", old),
        ] {
            let created = File::create(folder.path().join(name)).unwrap();
            created.set_modified(modified).unwrap();
        }
        assert!(read(&file).unwrap().is_none());
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "it.corrupt",
                "it.fedcba9876543210.tmp",
                "other.0123456789abcdef.tmp"
            ]
        );
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in the place of the file cannot be replaced by one.
        let path = folder.path().join("it");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "").unwrap();
        write(&SnapshotFile::new(&path), &services("a", 1)).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
