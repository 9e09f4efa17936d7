//! Tells when files change, within a second: by the system's notices, and by looking each second where those fail (network
//! file systems, a folder that did not exist yet).
//!
//! Folders are watched rather than files, and symbolic links are followed step by step: editors replace files, and Kubernetes
//! swaps the link `..data` to a new folder.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::time::Instant;

use super::source;

/// Looked for changes even without a notice.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A change is told when nothing was written for this long, so that a file is not read half-written …
const QUIET: Duration = Duration::from_millis(100);
/// … but after this long in any case.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(600);
/// Links followed from one file, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// A watch over files and folders; dropping it ends its thread.
pub struct Watch {
    changes: tokio_mpsc::Receiver<()>,
}

impl Watch {
    /// Begins to watch. What is read after this returns is not older than the state changes are told against.
    pub fn start(paths: Vec<PathBuf>) -> io::Result<Self> {
        let (changed, changes) = tokio_mpsc::channel(1);
        let fingerprint = fingerprint(&paths);
        let (notices, noticed) = mpsc::channel();
        let watched = Watched::new(&paths, notices);
        let thread = WatchThread {
            paths,
            fingerprint,
            watched,
            noticed,
            changed,
        };
        thread::Builder::new()
            .name("config-watch".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self { changes })
    }

    /// Waits for the next change; several in a row are one.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The thread ends only with this watch.
            std::future::pending::<()>().await;
        }
    }
}

struct WatchThread {
    paths: Vec<PathBuf>,
    fingerprint: Fingerprint,
    watched: Watched,
    noticed: Receiver<()>,
    changed: tokio_mpsc::Sender<()>,
}

impl WatchThread {
    fn run(mut self) {
        while !self.changed.is_closed() {
            match self.noticed.recv_timeout(POLL_INTERVAL) {
                Ok(()) => self.wait_for_quiet(),
                Err(RecvTimeoutError::Timeout) => {}
                // Without a watcher the looking goes on.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL_INTERVAL),
            }
            self.look();
        }
    }

    fn wait_for_quiet(&self) {
        let begun = Instant::now();
        while begun.elapsed() < QUIET_WAIT_MAX && self.noticed.recv_timeout(QUIET).is_ok() {}
    }

    fn look(&mut self) {
        let fingerprint = fingerprint(&self.paths);
        if fingerprint == self.fingerprint {
            return;
        }
        self.fingerprint = fingerprint;
        self.watched.follow(&self.paths);
        // Full: a change is waiting to be seen already. Closed: the loop ends.
        let _ = self.changed.try_send(());
    }
}

/// The folders the system tells us about.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(paths: &[PathBuf], notices: Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change, and our own reading must not wake us.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = notices.send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "No notices of changed files, so they are looked at each second");
        }
        let mut watched = Self {
            watcher: watcher.ok(),
            folders: BTreeSet::new(),
        };
        watched.follow(paths);
        watched
    }

    /// Watches what the paths lead to now. A folder that cannot be watched is looked at each second all the same.
    fn follow(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let folders = paths
            .iter()
            .flat_map(|path| folders(path))
            .collect::<BTreeSet<_>>();
        for gone in self.folders.difference(&folders) {
            let _ = watcher.unwatch(gone);
        }
        // Those kept are watched anew: a folder may have been replaced under the same name.
        for folder in &folders {
            let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
        }
        self.folders = folders;
    }
}

/// The folders in which a change can change what a path leads to.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    if let Ok(files) = source::files(path) {
        pending.extend(files);
    }
    for path in pending {
        follow_links(&path, &mut folders);
    }
    folders
}

fn follow_links(path: &Path, folders: &mut BTreeSet<PathBuf>) {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) if path.is_dir() => {
                folders.insert(path);
                folders.insert(parent);
                return;
            }
            Err(_) => {
                // A link among its folders, such as `..data`, is watched where it really is too.
                folders.extend(fs::canonicalize(&parent));
                folders.insert(parent);
                return;
            }
        }
        folders.insert(parent);
    }
}

/// What tells one state of files from another, without reading them.
type Fingerprint = Vec<(PathBuf, Option<FileState>)>;

#[derive(PartialEq, Eq, Debug)]
struct FileState {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let files = paths
        .iter()
        .flat_map(|path| source::files(path).unwrap_or_default());
    let states = files.map(|file| {
        let state = fs::metadata(&file)
            .ok()
            .map(|metadata| FileState::of(&metadata));
        (file, state)
    });
    states.collect()
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Far more than a change takes; a test that waits this long has failed.
    const HANG_GUARD: Duration = Duration::from_secs(30);

    async fn sees_a_change(watch: &mut Watch) {
        let changed = tokio::time::timeout(HANG_GUARD, watch.changed()).await;
        changed.expect("a change is seen");
    }

    #[tokio::test]
    async fn a_file_written_in_place_or_replaced_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.yaml");
        fs::write(&file, "a: 1").unwrap();
        let mut watch = Watch::start(vec![file.clone()]).unwrap();
        fs::write(&file, "a: 22").unwrap();
        sees_a_change(&mut watch).await;
        let other = folder.path().join("mesh.yaml.new");
        fs::write(&other, "a: 333").unwrap();
        fs::rename(&other, &file).unwrap();
        sees_a_change(&mut watch).await;
    }

    #[tokio::test]
    async fn files_that_come_and_go_in_a_folder_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(vec![folder.path().to_owned()]).unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "a: 1").unwrap();
        sees_a_change(&mut watch).await;
        fs::remove_file(&file).unwrap();
        sees_a_change(&mut watch).await;
    }

    #[tokio::test]
    async fn a_swap_of_the_link_that_kubernetes_makes_is_seen() {
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        for (folder, text) in [("..1", "a: 1"), ("..2", "a: 2"), ("..3", "a: 3")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("mesh.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/mesh.yaml", at("mesh.yaml")).unwrap();
        for watched in [at("mesh.yaml"), volume.path().to_owned()] {
            let mut watch = Watch::start(vec![watched]).unwrap();
            for folder in ["..2", "..3"] {
                symlink(folder, at("..data_tmp")).unwrap();
                fs::rename(at("..data_tmp"), at("..data")).unwrap();
                sees_a_change(&mut watch).await;
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_yet_is_seen_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("later");
        let mut watch = Watch::start(vec![inner.join("mesh.yaml")]).unwrap();
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("mesh.yaml"), "a: 1").unwrap();
        sees_a_change(&mut watch).await;
    }
}
