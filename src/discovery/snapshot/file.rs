//! The snapshot file: read at start, appended to, and rewritten when it has grown.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::codec::{self, Batch, Decoded, Saved};

/// Documents may name what not everybody should read.
const MODE: u32 = 0o600;
/// Appended bytes that are never worth a rewrite.
const COMPACT_BYTES_MIN: u64 = 256 * 1024;

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    pub saved: Saved,
    /// What was wrong with the file or the one before it, in words for the log.
    pub problems: Vec<String>,
}

/// The last good state at this path. A damaged file gives its good part, or else the state of the file before it; a
/// missing one gives the empty state without a problem.
pub fn load(path: &Path) -> Loaded {
    let mut problems = Vec::new();
    for candidate in [path.to_owned(), beside(path, "previous")] {
        let decoded = match read(&candidate) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => continue,
            Err(error) => {
                problems.push(format!("{}: {error}", candidate.display()));
                continue;
            }
        };
        if let Some(damage) = decoded.damage {
            problems.push(format!("{}: {damage}", candidate.display()));
        }
        if decoded.good_bytes > codec::HEADER_BYTES {
            return Loaded {
                saved: decoded.saved,
                problems,
            };
        }
    }
    Loaded {
        saved: Saved::default(),
        problems,
    }
}

fn read(path: &Path) -> io::Result<Option<Decoded>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(codec::decode(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The writing side. One process at a time: it holds a lock beside the file as long as it lives.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    /// Up to and with the last commit that is safely on disk.
    good_bytes: u64,
    /// The part that the last rewrite left.
    base_bytes: u64,
    _lock: File,
}

impl SnapshotFile {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writing: None,
        }
    }

    /// Makes this change durable. After an error the file still gives the state before it, and the call may be repeated.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut writing = match self.writing.take() {
            Some(writing) => writing,
            None => open(&self.path)?,
        };
        let appended = writing.append(&codec::encode(batch)).and_then(|()| {
            match writing.has_outgrown_its_base() {
                true => writing.compact(&self.path),
                false => Ok(()),
            }
        });
        self.writing = Some(writing);
        appended
    }
}

impl Writing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Whatever a failed write left behind the last commit goes first.
        self.file.set_len(self.good_bytes)?;
        self.file.seek(SeekFrom::Start(self.good_bytes))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.good_bytes += bytes.len() as u64;
        Ok(())
    }

    fn has_outgrown_its_base(&self) -> bool {
        let appended = self.good_bytes - self.base_bytes;
        appended > self.base_bytes.max(COMPACT_BYTES_MIN)
    }

    fn compact(&mut self, path: &Path) -> io::Result<()> {
        let decoded = codec::decode(&std::fs::read(path)?);
        let bytes = codec::encode_whole(&decoded.saved);
        keep_previous(path)?;
        self.file = replace(path, &bytes)?;
        self.good_bytes = bytes.len() as u64;
        self.base_bytes = self.good_bytes;
        Ok(())
    }
}

/// Takes the lock, and makes sure that the file ends with its last commit.
fn open(path: &Path) -> io::Result<Writing> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder)?;
    }
    let lock = options().create(true).open(beside(path, "lock"))?;
    lock.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => {
            io::Error::other("another process writes this snapshot; give each its own path")
        }
        std::fs::TryLockError::Error(error) => error,
    })?;
    // What `load` would use, so that a damaged file is replaced by the good part of it or of the one before.
    let intact = read(path)?.filter(|decoded| decoded.damage.is_none());
    let (file, good_bytes) = match intact {
        Some(decoded) => (options().open(path)?, decoded.good_bytes as u64),
        None => {
            let bytes = codec::encode_whole(&load(path).saved);
            (replace(path, &bytes)?, bytes.len() as u64)
        }
    };
    Ok(Writing {
        file,
        good_bytes,
        base_bytes: good_bytes,
        _lock: lock,
    })
}

/// Puts these bytes in the file's place, so that a power cut leaves the old content or the new.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let temporary = beside(path, "tmp");
    let mut file = options().create(true).truncate(true).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)?;
    Ok(file)
}

/// The file as it is now stays readable under the name that `load` tries second.
fn keep_previous(path: &Path) -> io::Result<()> {
    let fresh = beside(path, "previous.tmp");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::hard_link(path, &fresh)?;
    std::fs::rename(&fresh, beside(path, "previous"))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE);
    options
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;

    fn put(revision: u64, id: &str, value: &[u8]) -> Batch {
        let key = Key {
            kind: 1,
            id: id.into(),
        };
        Batch {
            entries: [(key, Some(value.to_vec()))].into(),
            revision,
            origin: "registry-a".into(),
        }
    }

    fn ids(saved: &Saved) -> Vec<String> {
        let mut ids: Vec<String> = saved.entries.keys().map(|key| key.id.clone()).collect();
        ids.sort();
        ids
    }

    #[test]
    fn nothing_on_disk_is_no_problem() {
        let folder = tempfile::tempdir().expect("a folder");
        let loaded = load(&folder.path().join("snapshot"));
        assert_eq!((loaded.saved, loaded.problems.len()), (Saved::default(), 0));
    }

    #[test]
    fn changes_are_read_back_by_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/snapshot");
        for revision in 1..=3 {
            let mut file = SnapshotFile::new(path.clone());
            file.append(&put(revision, &format!("id-{revision}"), b"x"))
                .expect("a writable folder");
        }
        let loaded = load(&path);
        assert_eq!(
            (
                loaded.saved.revision,
                ids(&loaded.saved).len(),
                loaded.problems.len()
            ),
            (3, 3, 0)
        );
    }

    #[test]
    fn a_torn_tail_is_reported_and_the_next_change_is_appended_to_the_good_part() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        let mut file = SnapshotFile::new(path.clone());
        file.append(&put(1, "a", b"x")).expect("a writable folder");
        let whole_bytes = std::fs::metadata(&path).expect("the file").len();
        file.append(&put(2, "b", b"x")).expect("a writable folder");
        drop(file);
        let whole = std::fs::read(&path).expect("the file");
        for cut in whole_bytes as usize + 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("a writable folder");
            let loaded = load(&path);
            assert_eq!(
                (loaded.saved.revision, loaded.problems.len()),
                (1, 1),
                "cut at {cut}"
            );
            SnapshotFile::new(path.clone())
                .append(&put(3, "c", b"x"))
                .expect("a writable folder");
            let loaded = load(&path);
            assert_eq!(
                (ids(&loaded.saved), loaded.problems.len()),
                (vec!["a".into(), "c".into()], 0),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_file_that_has_grown_is_rewritten_and_the_one_before_it_stands_in_when_it_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        let mut file = SnapshotFile::new(path.clone());
        let value = vec![b'x'; 64 * 1024];
        for revision in 1..=20 {
            file.append(&put(revision, "the-same", &value))
                .expect("a writable folder");
        }
        drop(file);
        let length = std::fs::metadata(&path).expect("the file").len();
        assert!(
            length < 10 * value.len() as u64,
            "{length} bytes for one entry"
        );
        assert_eq!(load(&path).saved.revision, 20);

        std::fs::write(&path, b"garbage").expect("a writable folder");
        let loaded = load(&path);
        assert_eq!(
            (ids(&loaded.saved), loaded.problems.len()),
            (vec!["the-same".into()], 1)
        );
    }

    #[test]
    fn two_processes_do_not_write_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        let mut first = SnapshotFile::new(path.clone());
        first.append(&put(1, "a", b"x")).expect("a writable folder");
        let mut second = SnapshotFile::new(path.clone());
        let refusal = second
            .append(&put(2, "b", b"x"))
            .expect_err("the first one holds it")
            .to_string();
        assert!(refusal.contains("another process"), "{refusal}");
        drop(first);
        second.append(&put(2, "b", b"x")).expect("it is free now");
    }
}
